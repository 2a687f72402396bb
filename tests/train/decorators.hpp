// Communicators that pass everything on but for what a test looks at or breaks.
#pragma once

#include <cstring>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "comm/forwarding.hpp"

namespace ashlar {

/// Its window is another resource.
class WithWindow final : public detail::ForwardingCommunicator {
 public:
  WithWindow(Communicator& inner, MemoryResource& window)
      : ForwardingCommunicator(inner), window_(window) {}
  MemoryResource& window() override { return window_; }

 private:
  MemoryResource& window_;
};

/// Notes the size of each allocation, in order.
class SizesAdaptor final : public MemoryResource {
 public:
  explicit SizesAdaptor(MemoryResource& upstream) : upstream_(upstream) {}
  const std::vector<std::int64_t>& sizes() const { return sizes_; }

 private:
  void* do_allocate(std::int64_t bytes, Category category, StreamRef stream) override {
    sizes_.push_back(bytes);
    return upstream_.allocate(bytes, category, stream);
  }
  void do_deallocate(void* pointer, std::int64_t bytes, Category category,
                     StreamRef stream) noexcept override {
    upstream_.deallocate(pointer, bytes, category, stream);
  }

  MemoryResource& upstream_;
  std::vector<std::int64_t> sizes_;
};

/// Ranks owe their sums to others: part p of what is summed is taken from part order[p].
class PermutedSums final : public detail::ForwardingCommunicator {
 public:
  PermutedSums(Communicator& inner, Communicator& summing, std::vector<int> order)
      : ForwardingCommunicator(inner), summing_(summing), order_(std::move(order)) {}

  Work reduce_scatter(std::span<const Transfer> flats, const ReduceOptions& options,
                      std::string_view label, StreamRef stream) override {
    std::vector<Transfer> permuted(flats.begin(), flats.end());
    for (Transfer& flat : permuted) {
      std::vector<std::byte>& copy =
          copies_.emplace_back(static_cast<std::size_t>(flat.send.bytes()));
      const std::size_t part = copy.size() / order_.size();
      for (std::size_t p = 0; p < order_.size(); ++p)
        std::memcpy(copy.data() + p * part,
                    flat.send.data + static_cast<std::size_t>(order_[p]) * part, part);
      flat.send.data = copy.data();
    }
    return summing_.reduce_scatter(permuted, options, label, stream);
  }

 private:
  Communicator& summing_;
  std::vector<int> order_;
  std::deque<std::vector<std::byte>> copies_;  // in use until their Work is done
};

}  // namespace ashlar
