// The only file that includes cuDNN's frontend, and compiled with -O1: it is large.
#include "cuda/cudnn_graph.hpp"

#define NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING
#define CUDNN_FRONTEND_SKIP_JSON_LIB
#include <cudnn_frontend.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <mutex>

#include "ashlar/error.hpp"

void* cudnn_frontend::cudnn_dlhandle = nullptr;

namespace ashlar::cuda {
namespace {

namespace fe = cudnn_frontend;
using Tensor = std::shared_ptr<fe::graph::Tensor_attributes>;

/// Operands in the order of their numbers in the graph, which begin at 1.
enum Operand : std::int64_t {
  kQuery = 1,
  kKey,
  kValue,
  kOut,
  kLse,
  kDout,
  kDquery,
  kDkey,
  kDvalue
};

/// The frontend looks for cuDNN's functions where this says, in all threads.
void show_to_frontend(const CudnnLibrary& library) {
  static std::once_flag once;
  std::call_once(once, [&] { fe::cudnn_dlhandle = library.handle; });
}

/// cuDNN's reason in one line.
std::string one_line(std::string text) {
  std::ranges::replace(text, '\n', ' ');
  constexpr std::size_t kMost = 500;
  if (text.size() > kMost) text = text.substr(0, kMost) + " ...";
  return text;
}

/// @throws CudaError where `step` failed.
void check(fe::error_t status, const AttentionProblem& problem, std::string_view step) {
  if (status.is_bad())
    throw CudaError(
        fmt::format("cuDNN: {}: {}: {}", describe(problem), step, one_line(status.get_message())));
}

/// `body`, with what the frontend throws as CudaError.
template <class Body>
auto guarded(const AttentionProblem& problem, const Body& body) {
  try {
    return body();
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    throw CudaError(fmt::format("cuDNN: {}: {}", describe(problem), one_line(error.what())));
  }
}

/// Extents (sequences, heads, positions, channels) and strides of an operand.
class Layout {
 public:
  explicit Layout(const AttentionProblem& problem) : p_(problem) {}
  void query(fe::graph::Tensor_attributes& t) const { rows(t, p_.heads, p_.query_stride); }
  void key(fe::graph::Tensor_attributes& t) const { rows(t, p_.kv_heads, p_.key_stride); }
  void out(fe::graph::Tensor_attributes& t) const { rows(t, p_.heads, p_.out_stride); }
  void lse(fe::graph::Tensor_attributes& t) const {
    t.set_dim({p_.sequences, p_.heads, p_.positions, 1})
        .set_stride({p_.lse_of_sequence(), p_.lse_of_head(), 1, 1})
        .set_data_type(fe::DataType_t::FLOAT);
  }

 private:
  void rows(fe::graph::Tensor_attributes& t, std::int64_t heads, std::int64_t stride) const {
    t.set_dim({p_.sequences, heads, p_.positions, p_.head_size})
        .set_stride({p_.positions * stride, p_.head_size, stride, 1});
  }
  const AttentionProblem& p_;
};

template <class Attributes>
Attributes causal(Attributes attributes, const AttentionProblem& p) {
  attributes.set_name("attention")
      .set_attn_scale(1.0F / std::sqrt(static_cast<float>(p.head_size)))
      .set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT)
      .set_diagonal_band_right_bound(0);
  return attributes;
}

}  // namespace

class AttentionGraph::Impl {
 public:
  explicit Impl(const AttentionProblem& problem) : layout_(problem), problem_(problem) {
    graph.set_io_data_type(fe::DataType_t::BFLOAT16)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT)
        .set_sm_version(problem.sm)
        .set_cuda_graph_retention(fe::CudaGraphRetention_t::NONE);
  }

  void add_nodes() {
    if (problem_.backward) {
      add_backward();
    } else {
      add_forward();
    }
  }

  fe::graph::Graph graph;

 private:
  using Extents = void (Layout::*)(fe::graph::Tensor_attributes&) const;

  Tensor input(Operand number, Extents extents) {
    fe::graph::Tensor_attributes tensor;
    (layout_.*extents)(tensor.set_uid(number).set_name(fmt::format("operand {}", number)));
    return graph.tensor(tensor);
  }
  void output(const Tensor& tensor, Operand number, Extents extents) {
    (layout_.*extents)(tensor->set_output(true).set_uid(number));
  }
  void add_forward() {
    const Tensor q = input(kQuery, &Layout::query), k = input(kKey, &Layout::key);
    const Tensor v = input(kValue, &Layout::key);
    auto options = causal(fe::graph::SDPA_attributes(), problem_);
    const auto [out, lse] = graph.sdpa(q, k, v, options.set_generate_stats(true));
    output(out, kOut, &Layout::out);
    output(lse, kLse, &Layout::lse);
  }
  void add_backward() {
    const Tensor q = input(kQuery, &Layout::query), k = input(kKey, &Layout::key);
    const Tensor v = input(kValue, &Layout::key), out = input(kOut, &Layout::out);
    const Tensor lse = input(kLse, &Layout::lse), dout = input(kDout, &Layout::out);
    auto options = causal(fe::graph::SDPA_backward_attributes(), problem_);
    options.set_deterministic_algorithm(problem_.deterministic);
    const auto [dq, dk, dv] = graph.sdpa_backward(q, k, v, out, dout, lse, options);
    output(dq, kDquery, &Layout::query);
    output(dk, kDkey, &Layout::key);
    output(dv, kDvalue, &Layout::key);
  }

  Layout layout_;
  const AttentionProblem& problem_;
};

AttentionGraph::AttentionGraph(const CudnnLibrary& library, const AttentionProblem& problem,
                               cudnnHandle_t handle)
    : problem_(problem) {
  show_to_frontend(library);
  guarded(problem_, [&] {
    impl_ = std::make_unique<Impl>(problem_);
    impl_->add_nodes();
    fe::graph::Graph& graph = impl_->graph;
    check(graph.validate(), problem_, "the graph is refused");
    check(graph.build_operation_graph(handle), problem_, "the graph is refused");
    check(graph.create_execution_plans({fe::HeurMode_t::A}), problem_, "no engine");
    if (problem_.deterministic)
      graph.deselect_numeric_notes({fe::NumericalNote_t::NONDETERMINISTIC});
    check(graph.check_support(handle), problem_, "no engine");
    check(graph.build_plans(handle), problem_, "no plan");
    finish();
  });
}

AttentionGraph::AttentionGraph(const CudnnLibrary& library, const AttentionProblem& problem,
                               const std::string& device)
    : problem_(problem) {
  show_to_frontend(library);
  guarded(problem_, [&] {
    const auto properties = std::make_shared<fe::DeviceProperties>();
    check(properties->deserialize({device.begin(), device.end()}), problem_,
          "the device's description is refused");
    impl_ = std::make_unique<Impl>(problem_);
    fe::graph::Graph& graph = impl_->graph;
    graph.set_device_properties(properties);
    impl_->add_nodes();
    check(graph.validate(), problem_, "the graph is refused");
    check(graph.build_operation_graph(), problem_, "the graph is refused");
    check(graph.create_execution_plans({fe::HeurMode_t::A}), problem_, "no engine");
    if (problem_.deterministic)
      graph.deselect_numeric_notes({fe::NumericalNote_t::NONDETERMINISTIC});
    check(graph.check_support(), problem_, "no engine");
    check(graph.build_plans(), problem_, "no plan");
    finish();
  });
}

AttentionGraph::~AttentionGraph() = default;

void AttentionGraph::finish() {
  check(impl_->graph.get_workspace_size(workspace_), problem_, "no workspace");
  check(impl_->graph.get_plan_name(engine_), problem_, "no name");
}

void AttentionGraph::run(cudnnHandle_t handle, const AttentionOperands& o,
                         std::byte* workspace) const {
  std::array<void*, 5> forward = {o.query, o.key, o.value, o.out, o.lse};
  std::array<void*, 9> backward = {o.query, o.key,    o.value, o.out,   o.lse,
                                   o.dout,  o.dquery, o.dkey,  o.dvalue};
  guarded(problem_, [&] {
    const fe::graph::Graph& graph = impl_->graph;
    check(problem_.backward ? graph.execute(handle, backward.data(), 9, workspace)
                            : graph.execute(handle, forward.data(), 5, workspace),
          problem_, "run");
  });
}

}  // namespace ashlar::cuda
