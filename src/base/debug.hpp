// Whether this is a debug build of the library.
#pragma once

namespace ashlar {

#ifdef NDEBUG
inline constexpr bool kDebugBuild = false;
#else
inline constexpr bool kDebugBuild = true;
#endif

}  // namespace ashlar
