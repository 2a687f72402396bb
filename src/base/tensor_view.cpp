// Queries on views.
#include "ashlar/tensor_view.hpp"

namespace ashlar {

bool TensorView::contiguous() const {
  if (elements() == 0) return true;
  std::int64_t step = 1;
  for (int axis = shape.rank() - 1; axis >= 0; --axis) {
    if (shape[axis] != 1 && strides[axis] != step) return false;
    step *= shape[axis];
  }
  return true;
}

}  // namespace ashlar
