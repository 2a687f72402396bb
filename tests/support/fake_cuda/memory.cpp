// Memory of devices, which the host cannot touch: addresses are reserved without access, and what
// work writes goes to the physical memory that is mapped there at that time.
#include "support/fake_cuda/memory.hpp"

#include <cuda.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <vector>

namespace fake {
namespace {

using Size = std::size_t;

/// Zeroed when first touched.
struct Mapped {
  explicit Mapped(Size size, int access = PROT_READ | PROT_WRITE)
      : bytes(size),
        begin(static_cast<char*>(
            ::mmap(nullptr, size, access, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0))) {}
  ~Mapped() { ::munmap(begin, bytes); }
  Mapped(const Mapped&) = delete;
  Mapped& operator=(const Mapped&) = delete;
  Size bytes;
  char* begin;
};

struct Physical : Mapped {
  Physical(int on, Size size) : Mapped(size), device(on) {
    used() += static_cast<std::int64_t>(size);
  }
  ~Physical() { used() -= static_cast<std::int64_t>(bytes); }
  std::int64_t& used() const {
    auto& all = fake_cuda()->used;
    all.resize(std::max(all.size(), static_cast<Size>(device) + 1));
    return all[static_cast<Size>(device)];
  }
  int device;
};

struct Mapping {
  Size bytes;
  std::shared_ptr<Physical> memory;
  bool access;
};

struct Machine {
  std::map<Address, std::unique_ptr<Mapped>> reservations;  // aligned inside of what is mapped
  std::map<Address, Size> reserved;
  std::map<Address, Mapping> mappings;
  std::map<CUmemGenericAllocationHandle, std::shared_ptr<Physical>> handles;
  std::map<char*, std::unique_ptr<Mapped>> pinned;
  CUmemGenericAllocationHandle last_handle = 0;
};
Machine machine;

bool fails() { return fake_cuda()->calls++ == fake_cuda()->failing; }
bool in_pages(Size bytes) { return bytes > 0 && bytes % FakeCuda::kPage == 0; }
CUresult refused(const std::string& text) {
  problem(text);
  return CUDA_ERROR_INVALID_VALUE;
}

bool has_room(int device, Size bytes) {
  const auto& used = fake_cuda()->used;
  const auto index = static_cast<Size>(device);
  const std::int64_t held = index < used.size() ? used[index] : 0;
  return static_cast<std::int64_t>(bytes) <= fake_cuda()->capacity - held;
}

std::map<Address, Size>::iterator reservation_of(Address begin, Size bytes) {
  auto found = machine.reserved.upper_bound(begin);
  if (found == machine.reserved.begin()) return machine.reserved.end();
  --found;
  return begin + bytes <= found->first + found->second ? found : machine.reserved.end();
}

/// The mappings that make up [begin, begin + bytes) exactly; empty otherwise.
std::vector<std::map<Address, Mapping>::iterator> cover(Address begin, Size bytes) {
  std::vector<std::map<Address, Mapping>::iterator> result;
  Address at = begin;
  while (at < begin + bytes) {
    const auto found = machine.mappings.find(at);
    if (found == machine.mappings.end()) return {};
    result.push_back(found);
    at += found->second.bytes;
  }
  return at == begin + bytes ? result : decltype(result){};
}

/// Visits the physical memory behind addresses of a device, or the host's memory itself.
void visit(Address begin, Size bytes, const std::function<void(char*, Size)>& use) {
  if (reservation_of(begin, 1) == machine.reserved.end())
    return use(reinterpret_cast<char*>(begin), bytes);
  while (bytes > 0) {
    auto found = machine.mappings.upper_bound(begin);
    if (found == machine.mappings.begin()) return problem("work on addresses without memory");
    const auto& [first, mapping] = *--found;
    if (begin >= first + mapping.bytes) return problem("work on addresses without memory");
    if (!mapping.access) return problem("work on memory without access");
    const Size here = std::min<Size>(bytes, first + mapping.bytes - begin);
    use(mapping.memory->begin + (begin - first), here);
    begin += here;
    bytes -= here;
  }
}

}  // namespace

void problem(const std::string& text) { fake_cuda()->problems.push_back(text); }

void read(Address from, char* to, Size bytes) {
  visit(from, bytes, [&](const char* data, Size size) {
    std::memcpy(to, data, size);
    to += size;
  });
}
void write(Address to, const char* from, Size bytes) {
  visit(to, bytes, [&](char* data, Size size) {
    std::memcpy(data, from, size);
    from += size;
  });
}

bool pageable(const void* at) {
  const auto address = reinterpret_cast<Address>(at);
  if (reservation_of(address, 1) != machine.reserved.end()) return false;
  return std::ranges::none_of(machine.pinned, [&](const auto& block) {
    return at >= block.first && at < block.first + block.second->bytes;
  });
}

void fill(Address to, int value, Size bytes) {
  visit(to, bytes, [&](char* data, Size size) { std::memset(data, value, size); });
}

namespace {

CUresult granularity(Size* bytes, const CUmemAllocationProp* what,
                     CUmemAllocationGranularity_flags) {
  if (what->type != CU_MEM_ALLOCATION_TYPE_PINNED) return refused("granularity: the type");
  *bytes = FakeCuda::kPage;
  return CUDA_SUCCESS;
}
CUresult reserve(Address* begin, Size bytes, Size alignment, Address, unsigned long long) {
  if (!in_pages(bytes)) return refused("reserve: not in pages");
  if (fails() || bytes > Size{1} << 45) return CUDA_ERROR_OUT_OF_MEMORY;
  auto memory = std::make_unique<Mapped>(bytes + alignment, PROT_NONE);
  if (memory->begin == MAP_FAILED) return CUDA_ERROR_OUT_OF_MEMORY;
  *begin = (reinterpret_cast<Address>(memory->begin) + alignment - 1) / alignment * alignment;
  machine.reserved[*begin] = bytes;
  machine.reservations[*begin] = std::move(memory);
  ++fake_cuda()->reservations;
  return CUDA_SUCCESS;
}
CUresult free_addresses(Address begin, Size bytes) {
  const auto found = machine.reserved.find(begin);
  if (found == machine.reserved.end() || found->second != bytes)
    return refused("free: no such reservation");
  const auto next = machine.mappings.lower_bound(begin);
  if (next != machine.mappings.end() && next->first < begin + bytes)
    return refused("free: memory is mapped there");
  machine.reserved.erase(found);
  machine.reservations.erase(begin);
  --fake_cuda()->reservations;
  return CUDA_SUCCESS;
}
CUresult create(CUmemGenericAllocationHandle* handle, Size bytes, const CUmemAllocationProp* what,
                unsigned long long) {
  if (!in_pages(bytes)) return refused("create: not in pages");
  if (what->location.type != CU_MEM_LOCATION_TYPE_DEVICE ||
      what->location.id >= fake_cuda()->devices)
    return refused("create: no such place");
  if (fails() || !has_room(what->location.id, bytes)) return CUDA_ERROR_OUT_OF_MEMORY;
  *handle = ++machine.last_handle;
  machine.handles[*handle] = std::make_shared<Physical>(what->location.id, bytes);
  ++fake_cuda()->handles;
  return CUDA_SUCCESS;
}
CUresult release(CUmemGenericAllocationHandle handle) {
  if (machine.handles.erase(handle) == 0) return refused("release: no such handle");
  --fake_cuda()->handles;
  return CUDA_SUCCESS;
}
CUresult map(Address begin, Size bytes, Size offset, CUmemGenericAllocationHandle handle,
             unsigned long long) {
  const auto memory = machine.handles.find(handle);
  if (memory == machine.handles.end()) return refused("map: no such handle");
  if (!in_pages(bytes) || begin % FakeCuda::kPage != 0 || offset != 0 ||
      bytes != memory->second->bytes)
    return refused("map: not in pages");
  if (reservation_of(begin, bytes) == machine.reserved.end())
    return refused("map: addresses that are not reserved");
  auto next = machine.mappings.lower_bound(begin);
  bool taken = next != machine.mappings.end() && next->first < begin + bytes;
  if (next != machine.mappings.begin()) {
    --next;
    taken |= next->first + next->second.bytes > begin;
  }
  if (taken) return refused("map: memory is mapped there already");
  if (fake_cuda()->no_room == "map") return CUDA_ERROR_OUT_OF_MEMORY;
  if (fails()) return CUDA_ERROR_UNKNOWN;
  machine.mappings[begin] = {bytes, memory->second, false};
  return CUDA_SUCCESS;
}
CUresult unmap(Address begin, Size bytes) {
  const auto all = cover(begin, bytes);
  if (all.empty()) return refused("unmap: not what was mapped");
  for (const auto& mapping : all) machine.mappings.erase(mapping);
  return CUDA_SUCCESS;
}
CUresult set_access(Address begin, Size bytes, const CUmemAccessDesc* how, Size count) {
  const auto all = cover(begin, bytes);
  if (all.empty()) return refused("set_access: not what was mapped");
  if (count != 1 || how->flags != CU_MEM_ACCESS_FLAGS_PROT_READWRITE)
    return refused("set_access: no access");
  if (fake_cuda()->no_room == "set_access") return CUDA_ERROR_OUT_OF_MEMORY;
  if (fails()) return CUDA_ERROR_UNKNOWN;
  for (const auto& mapping : all) mapping->second.access = true;
  return CUDA_SUCCESS;
}

}  // namespace
}  // namespace fake

using namespace fake;

extern "C" {

cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function, unsigned,
                                             unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
  static const std::map<std::string, void*> functions{
      {"cuMemGetAllocationGranularity", reinterpret_cast<void*>(&granularity)},
      {"cuMemAddressReserve", reinterpret_cast<void*>(&reserve)},
      {"cuMemAddressFree", reinterpret_cast<void*>(&free_addresses)},
      {"cuMemCreate", reinterpret_cast<void*>(&create)},
      {"cuMemRelease", reinterpret_cast<void*>(&release)},
      {"cuMemMap", reinterpret_cast<void*>(&map)},
      {"cuMemUnmap", reinterpret_cast<void*>(&unmap)},
      {"cuMemSetAccess", reinterpret_cast<void*>(&set_access)}};
  const auto found = functions.find(symbol);
  *function = found == functions.end() ? nullptr : found->second;
  *result = *function == nullptr ? cudaDriverEntryPointSymbolNotFound : cudaDriverEntryPointSuccess;
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(Size* free, Size* total) {
  const auto& used = fake_cuda()->used;
  const auto index = static_cast<Size>(fake_cuda()->current);
  *total = static_cast<Size>(fake_cuda()->capacity);
  *free = *total - static_cast<Size>(index < used.size() ? used[index] : 0);
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** begin, Size bytes) {
  const Size whole = (bytes + FakeCuda::kPage - 1) / FakeCuda::kPage * FakeCuda::kPage;
  const int device = fake_cuda()->current;
  if (const cudaError_t failed = may_fail(cudaErrorMemoryAllocation)) return failed;
  if (!has_room(device, whole)) return status(cudaErrorMemoryAllocation);
  auto memory = std::make_unique<Mapped>(whole, PROT_NONE);
  const auto address = reinterpret_cast<Address>(memory->begin);
  machine.reserved[address] = whole;
  machine.reservations[address] = std::move(memory);
  machine.mappings[address] = {whole, std::make_shared<Physical>(device, whole), true};
  ++fake_cuda()->reservations;
  *begin = reinterpret_cast<void*>(address);
  return cudaSuccess;
}
cudaError_t cudaFree(void* begin) {
  if (begin == nullptr) return cudaSuccess;
  const auto address = reinterpret_cast<Address>(begin);
  const auto found = machine.reserved.find(address);
  if (found == machine.reserved.end()) return invalid("cudaFree: not what cudaMalloc gave");
  if (unmap(address, found->second) != CUDA_SUCCESS ||
      free_addresses(address, found->second) != CUDA_SUCCESS)
    return status(cudaErrorInvalidValue);
  return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** begin, Size bytes, unsigned) {
  if (const cudaError_t failed = may_fail(cudaErrorMemoryAllocation)) return failed;
  auto memory = std::make_unique<Mapped>(bytes);
  *begin = memory->begin;
  machine.pinned[memory->begin] = std::move(memory);
  ++fake_cuda()->pinned;
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* begin) {
  if (machine.pinned.erase(static_cast<char*>(begin)) == 0)
    return invalid("cudaFreeHost: not what cudaHostAlloc gave");
  --fake_cuda()->pinned;
  return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  attributes->type = pageable(pointer) ? cudaMemoryTypeUnregistered : cudaMemoryTypeHost;
  return cudaSuccess;
}

}  // extern "C"
