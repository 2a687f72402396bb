// PyTorch's CUDA memory from the caching allocator: what torch.cuda.memory.CUDAPluggableAllocator
// loads by name from libashlar_torch_allocator.so. Streams are cudaStream_t.
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "ashlar/caching_resource.hpp"
#include "ashlar/device_memory.hpp"
#include "ashlar/error.hpp"
#include "ashlar/interop/cuda_stream.hpp"

namespace ashlar {
namespace {

using Streams = std::vector<void*>;

/// One device's memory. torch says of no stream that it ends, and it ends none.
class DeviceCache {
 public:
  explicit DeviceCache(int index)
      : device_{DeviceType::cuda, index},
        pages_(device_pages(device_)),
        cache_(*pages_, {.name = to_string(device_)}) {}

  void* allocate(std::int64_t bytes, void* stream) {
    return cache_.allocate(bytes, Category::activation, ref(stream));
  }
  /// @param users other streams with work on it
  void deallocate(void* pointer, std::int64_t bytes, void* stream, const Streams& users) noexcept {
    const StreamRef own = ref(stream);
    try {
      for (void* user : users) own.wait(ref(user).record());
    } catch (const CudaError&) {  // of a device that has failed: nothing runs on it any more
    }
    cache_.deallocate(pointer, bytes, Category::activation, own);
  }
  void trim() { cache_.trim(); }

 private:
  StreamRef ref(void* native) {
    const std::scoped_lock lock(mutex_);
    return streams_.try_emplace(native, native, device_).first->second;
  }

  Device device_;
  std::unique_ptr<PageSource> pages_;
  CachingResource cache_;
  std::mutex mutex_;
  std::map<void*, BorrowedStream> streams_;
};

class Caches {
 public:
  DeviceCache& of(int device) {
    const std::scoped_lock lock(mutex_);
    return devices_.try_emplace(device, device).first->second;
  }
  void record(void* pointer, void* stream) {
    const std::scoped_lock lock(mutex_);
    users_[pointer].push_back(stream);
  }
  /// Who works on a pointer, and forgets it.
  Streams take_users(void* pointer) {
    const std::scoped_lock lock(mutex_);
    const auto found = users_.extract(pointer);
    return found ? found.mapped() : Streams();
  }
  void trim() {
    const std::scoped_lock lock(mutex_);
    for (auto& [device, cache] : devices_) cache.trim();
  }

 private:
  std::mutex mutex_;
  std::map<int, DeviceCache> devices_;
  std::map<void*, Streams> users_;
};

/// They live until the process ends: torch frees at exit, when CUDA may be gone.
Caches& caches() {
  static Caches& instance = *new Caches;
  return instance;
}

}  // namespace
}  // namespace ashlar

extern "C" {

/// Throws OutOfMemory and CudaError, which torch makes a RuntimeError; it would take a null pointer
/// for memory.
void* ashlar_torch_alloc(std::ptrdiff_t bytes, int device, void* stream) {
  return ashlar::caches().of(device).allocate(bytes, stream);
}

void ashlar_torch_free(void* pointer, std::ptrdiff_t bytes, int device, void* stream) {
  if (pointer == nullptr) return;
  ashlar::Caches& all = ashlar::caches();
  all.of(device).deallocate(pointer, bytes, stream, all.take_users(pointer));
}

/// For set_record_stream_fn: Tensor.record_stream. The pointer's memory is reused after what is on
/// the stream, one of its device, when it is freed.
void ashlar_torch_record_stream(void* pointer, void* stream) {
  ashlar::caches().record(pointer, stream);
}

/// For set_reset_fn: torch.cuda.empty_cache.
void ashlar_torch_empty_cache() { ashlar::caches().trim(); }

}  // extern "C"
