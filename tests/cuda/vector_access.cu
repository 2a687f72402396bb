// Read by device_code.cmake: what load16, store16, load8 and store8 become.
#include "cuda/device.h"

__global__ void copy(ashlar::bf16* to, const ashlar::bf16* from) {
  ashlar::cuda::store16(to, ashlar::cuda::load16(from));
  ashlar::cuda::store8(to + 8, ashlar::cuda::load8(from + 8));
}
