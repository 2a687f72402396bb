#include "sharding/state_image.hpp"

#include "ashlar/device_memory.hpp"

namespace ashlar {

StateImage::StateImage(const StateLayout& states, const PerSpace<std::byte*>& bases,
                       const ExecutionTarget& target)
    : states_(states), bases_(bases), stream_(target.stream) {
  if (stream_.is_inline()) return;
  for (const Space space : kStateSpaces) {
    const auto s = static_cast<std::size_t>(space);
    copies_[s] = Buffer(host_memory(), states.bytes(space), Category::parameter);
    copy_async(copies_[s].data(), bases[s], copies_[s].bytes(), stream_);
  }
  stream_.synchronize();
}

StateViews StateImage::views() const {
  StateViews views;
  for (const auto& [name, entry] : states_.entries())
    views.emplace(name,
                  TensorView(base(entry.space) + entry.offset, entry.type.dtype, entry.type.shape));
  return views;
}

void StateImage::store() const {
  if (stream_.is_inline()) return;
  for (const Space space : kStateSpaces) {
    const Buffer& copy = copies_[static_cast<std::size_t>(space)];
    copy_async(bases_[static_cast<std::size_t>(space)], copy.data(), copy.bytes(), stream_);
  }
  stream_.synchronize();
}

std::byte* StateImage::base(Space space) const {
  const auto s = static_cast<std::size_t>(space);
  return stream_.is_inline() ? bases_[s] : copies_[s].data();
}

}  // namespace ashlar
