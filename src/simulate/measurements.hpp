// Published measurements of training runs: CSV in the dialect of llm-foundry's table of
// throughputs.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <vector>

namespace ashlar::simulate {

/// One run of a GPT under PyTorch's FSDP. Beside each member: its column.
struct Measurement {
  std::string row_id;
  std::int64_t layers = 0;          // n_layers
  std::int64_t width = 0;           // d_model
  std::int64_t heads = 0;           // n_heads
  std::int64_t vocabulary = 0;      // vocab
  std::int64_t inner_by_width = 4;  // ffn_mult
  std::int64_t sequence = 0;        // seq_len
  int ranks = 0;                    // n_gpus
  std::string gpu;
  bool bf16 = true;             // precision: bf16 or amp_bf16
  bool f32_parameters = false;  // mp_mode DEFAULT: parameters are gathered in f32
  bool recompute = false;       // act_ckpt
  std::int64_t micro_batch = 0;
  std::int64_t accumulate = 0;   // grad_accum
  double tokens_per_second = 0;  // tokens_per_s, of all ranks
};

/// Columns in any order, further ones ignored.
/// @throws InvalidArgument naming source, line and column: one that is missing, a field that is no
/// number or beyond what runs can be, a repeated row_id, sharding other than FULL_SHARD, offloading
std::vector<Measurement> read_measurements(std::istream& in, const std::string& source);
std::vector<Measurement> read_measurements(const std::string& path);

}  // namespace ashlar::simulate
