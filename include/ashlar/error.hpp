// Failures. Every message says what failed, where, on which rank when ranks matter, and what to do
// about it.
#pragma once

#include <stdexcept>
#include <string>

namespace ashlar {

/// Base of everything the library throws.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A request that cannot be met as stated: a flag, a shape, a file, a configuration. Programs exit
/// with code 2.
class InvalidArgument : public Error {
 public:
  using Error::Error;
};

/// A memory resource could not serve a request; the message names the largest holders by category.
class OutOfMemory : public Error {
 public:
  using Error::Error;
};

/// A collective failed: a rank died, diverged, threw or did not arrive in time.
class CommunicationError : public Error {
 public:
  using Error::Error;
};

/// A call of CUDA, NCCL or cuDNN failed, or CUDA is not here; the message names the call's place.
class CudaError : public Error {
 public:
  using Error::Error;
};

/// A checkpoint or weights file that is truncated, altered or of another format; the message names
/// the tensor.
class CorruptCheckpoint : public InvalidArgument {
 public:
  using InvalidArgument::InvalidArgument;
};

}  // namespace ashlar
