// Attention on CUDA by a library: which rows it serves, how much memory they plan, and the parts
// that they run in.
//
// The row sums that forward leaves are those of the CPU's row, so that either side of a pair may
// run on kernels of our own.
#pragma once

#include <compare>
#include <string>

#include "ashlar/op.hpp"

namespace ashlar::cuda {

/// The library's kernel of an op for GPUs of compute capability `sm`, with workspaces that are
/// known without a device; null where it has none, for find_kernel's to serve. Within a row,
/// operands that the library does not take (not bf16, sequences of given boundaries, heads of other
/// than 8, 16, ... 128 channels, single positions, addresses that are no multiples of 16) run on
/// kernels of our own, and so does everything where the library is not installed or has no plan
/// within the workspace, which is said once on stderr.
/// @param sm 80, 90 or 100  @param deterministic the same gradients in every run
const DeviceKernel* find_attention(std::string_view op, int sm, bool deterministic = true);

/// One call of the library. Elements are bf16, those of lse f32.
struct AttentionProblem {
  int sm = 0;
  bool backward = false, deterministic = true;
  std::int64_t sequences = 0, positions = 0, heads = 0, kv_heads = 0, head_size = 0;
  /// Elements from row to row of q (and its gradient), of k and v (and theirs), of out and dout.
  std::int64_t query_stride = 0, key_stride = 0, out_stride = 0;

  auto operator<=>(const AttentionProblem&) const = default;

  /// Row sums lie as (heads, sequences, positions) in forward, (sequences, heads, positions) in
  /// backward: cuDNN before 9.26 reads no other strides.
  std::int64_t lse_of_sequence() const { return backward ? heads * positions : positions; }
  std::int64_t lse_of_head() const { return backward ? positions : sequences * positions; }
};

/// "attention backward of 4 x 1024 positions, 12 heads of 64 channels on sm_90", for messages.
std::string describe(const AttentionProblem& problem);

/// Where the first elements lie. Forward reads query, key, value and writes out and lse; backward
/// reads all five and dout, and writes the gradients.
struct AttentionOperands {
  std::byte *query = nullptr, *key = nullptr, *value = nullptr, *out = nullptr, *lse = nullptr;
  std::byte *dout = nullptr, *dquery = nullptr, *dkey = nullptr, *dvalue = nullptr;
};

/// What the library may use of the workspace in one call: what cuDNN's plans want (of 9.19;
/// the test cuda.attention_plans compares), rounded up.
std::int64_t library_bytes(const AttentionProblem& problem);

/// Most of a call's bytes, where one sequence and one head of keys need no more.
inline constexpr std::int64_t kMostLibraryBytes = std::int64_t{128} << 20;

/// The largest equal parts of a problem within kMostLibraryBytes: some of the sequences, else some
/// heads of one. Deterministic gradients before cuDNN 9.25 take 2 T^2 bytes per sequence and head.
AttentionProblem part_of(const AttentionProblem& problem);

/// A library on one device.
class AttentionLibrary {
 public:
  virtual ~AttentionLibrary() = default;
  /// Whether it has a plan within library_bytes(problem): always the same answer.
  virtual bool serves(const AttentionProblem& problem) = 0;
  /// The library's version and the plan's engine, of what it serves.
  virtual std::string plan(const AttentionProblem& problem) = 0;
  /// Enqueues what it serves. @param workspace library_bytes(problem) from a multiple of 256
  virtual void run(const AttentionProblem& problem, const AttentionOperands& operands,
                   std::byte* workspace, StreamRef stream) = 0;
};

/// The library of a stream's device, null where there is none.
AttentionLibrary* attention_library(StreamRef stream);

/// What serves a call of one of find_attention's rows, for ranks to compare: its extents and the
/// library's plan, or that kernels of our own do; empty where shapes and types leave no choice, and
/// for other kernels. Nothing is read through the pointers.
std::string attention_choice(const DeviceKernel& row, const KernelArguments& arguments);

/// The engines of the plans that the library has made for a device so far, each with its pass and
/// once; empty where there are none.
std::string attention_plans(Device device);

}  // namespace ashlar::cuda
