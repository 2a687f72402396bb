// Which kernel serves which op.
#include <array>

#include "cuda/kernel_table.hpp"
#include "cuda/kernels.hpp"
#include "cuda/kernels/reduce_parts.hpp"

namespace ashlar::cuda {

namespace {

std::int64_t no_workspace(const OpShapes&) { return 0; }

constexpr std::array kTable = std::to_array<Kernel>({
    {"accumulate", accumulate},
    {"add", add},
    {"add_layer_norm", add_layer_norm},
    {"average_pool2d", average_pool2d},
    {"average_pool2d_spread", average_pool2d_spread},
    {"cast", cast},
    {"causal_attention", attention},
    {"causal_attention_backward", attention_backward, attention_backward_workspace},
    {"causal_mask", causal_mask},
    {"constant", constant},
    {"contiguous", copy},
    {"conv2d", conv2d, no_workspace},
    {"conv2d_input_gradient", conv2d_input_gradient, no_workspace},
    {"conv2d_weight_gradient", conv2d_weight_gradient, conv2d_weight_gradient_workspace},
    {"cross_entropy", cross_entropy},
    {"cross_entropy_backward", cross_entropy_backward},
    {"divide", divide},
    {"dropout", dropout},
    {"embedding", embedding},
    {"embedding_positions", embedding_positions},
    {"embedding_tokens", embedding_tokens},
    {"exp", exp},
    {"gelu", gelu},
    {"gelu_backward", gelu_backward},
    {"gelu_columns_backward", gelu_columns_backward},
    {"gradient_norm", gradient_norm},
    {"grouped_query_attention", grouped_attention},
    {"grouped_query_attention_backward", grouped_attention_backward, attention_backward_workspace},
    {"layer_norm", layer_norm},
    {"layer_norm_backward", layer_norm_backward},
    {"layer_norm_parameters", layer_norm_parameters},
    {"log", log},
    {"max_pool2d", max_pool2d},
    {"max_pool2d_pick", max_pool2d_pick},
    {"max_pool2d_spread", max_pool2d_spread},
    {"multiply", multiply},
    {"pack", pack},
    {"pad", pad},
    {"rms_norm", rms_norm},
    {"rms_norm_backward", rms_norm_backward},
    {"rms_norm_weight", rms_norm_weight},
    {"rotary", rotary},
    {"round_sums", round_sums, round_sums_workspace},
    {"scale", scale},
    {"silu", silu},
    {"silu_backward", silu_backward},
    {"softmax", softmax},
    {"softmax_backward", softmax_backward},
    {"subtract", subtract},
    {"sum", sum, sum_workspace},
    {"swiglu", swiglu},
    {"swiglu_backward", swiglu_backward},
    {"take_integers", take_integers},
    {"tanh", tanh},
    {"tanh_backward", tanh_backward},
    {"target_weights", target_weights},
    {"update", update},
});

static_assert(std::ranges::is_sorted(kTable, {}, &Kernel::op));

}  // namespace

std::span<const Kernel> kernels_of_ops() { return kTable; }

const Kernel* find_kernel(std::string_view op) { return find_in(kTable, op); }

}  // namespace ashlar::cuda
