// Owned bytes and the resource that they came from.
#pragma once

#include <utility>

#include "ashlar/memory_resource.hpp"
#include "ashlar/tensor_view.hpp"

namespace ashlar {

/// Move-only owner of one allocation; gives it back to its resource, on its stream, when it goes.
class Buffer {
 public:
  Buffer() = default;
  /// @param bytes uninitialised. The resource outlives the buffer.
  Buffer(MemoryResource& resource, std::int64_t bytes, Category category, StreamRef stream = {})
      : resource_(&resource),
        data_(static_cast<std::byte*>(resource.allocate(bytes, category, stream))),
        bytes_(bytes),
        category_(category),
        stream_(stream) {}
  ~Buffer() { reset(); }
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }

  std::byte* data() const { return data_; }
  std::int64_t bytes() const { return bytes_; }
  TensorView view(DType dtype, const Shape& shape, std::int64_t offset_bytes = 0) const {
    return {data_ + offset_bytes, dtype, shape};
  }
  void reset() noexcept {
    if (resource_ != nullptr) resource_->deallocate(data_, bytes_, category_, stream_);
    resource_ = nullptr;
    data_ = nullptr;
    bytes_ = 0;
  }

 private:
  void swap(Buffer& other) noexcept {
    std::swap(resource_, other.resource_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(category_, other.category_);
    std::swap(stream_, other.stream_);
  }

  MemoryResource* resource_ = nullptr;
  std::byte* data_ = nullptr;
  std::int64_t bytes_ = 0;
  Category category_ = Category::activation;
  StreamRef stream_;
};

}  // namespace ashlar
