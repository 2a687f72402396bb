// Memory for buckets and gathered units.
#pragma once

#include <string>
#include <utility>

#include "ashlar/caching_resource.hpp"
#include "memory/resource_pages.hpp"

namespace ashlar {

/// Keeps what a resource has served, so that steps after the first take no memory upstream.
struct TransientPool {
  TransientPool(MemoryResource& upstream, std::string name)
      : pages(upstream, Category::communication),
        cache(pages, {.name = std::move(name), .expandable = false, .segment_bytes = 1 << 20}) {}
  ResourcePages pages;
  CachingResource cache;
};

}  // namespace ashlar
