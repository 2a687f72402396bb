// Read by vector_access.cmake: what load16 and store16 become.
#include "cuda/device.h"

__global__ void copy(ashlar::bf16* to, const ashlar::bf16* from) {
  ashlar::cuda::store16(to, ashlar::cuda::load16(from));
}
