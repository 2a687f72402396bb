// What streams and events promise on every device; each test program says which one it tests.
#pragma once

#include "ashlar/device.hpp"

namespace ashlar::test {

/// Where the cases of stream_cases.cpp make their streams; defined beside the program's own tests.
Device device_of_streams();

}  // namespace ashlar::test
