// The language-model head: products by chunks of rows, losses and gradients of logits by our own
// kernels between them.
#include <algorithm>

#include "ashlar/error.hpp"
#include "cuda/products.hpp"
#include "ops/product/rows.hpp"

namespace ashlar::cuda {
namespace {

constexpr std::int64_t kChunkRows = 2048;
// The vocabulary of products is a multiple of so many, which the library's fast kernels want. The
// weight and its gradient keep the real one.
constexpr std::int64_t kVocabularyUnit = 64;

std::int64_t rounded_up(std::int64_t n, std::int64_t unit) { return (n + unit - 1) / unit * unit; }

/// Where what lies in the workspace, in bytes. Everything but the losses is the same for any number
/// of rows from two chunks on.
struct HeadLayout {
  explicit HeadLayout(const Head& head)
      : chunk(std::min(head.rows, kChunkRows)),
        vocabulary(rounded_up(head.vocabulary, kVocabularyUnit)),
        padded(vocabulary != head.vocabulary),
        sums_apart(head.dweight &&
                   (padded || (head.rows > chunk && head.dweight_dtype != DType::f32))) {
    library = reserve(kProductWorkspace);
    weight = reserve(padded ? vocabulary * head.channels * size_of(head.dtype) : 0);
    logits = reserve(chunk * vocabulary * size_of(head.dtype));
    losses = reserve(head.rows * size_of(DType::f64));
    scales = reserve(2 * size_of(DType::f64));
    sums = reserve(sums_apart ? vocabulary * head.channels * size_of(DType::f32) : 0);
  }

  std::int64_t chunk;       // rows of logits
  std::int64_t vocabulary;  // of products
  bool padded;              // products read a copy of the weight with rows of zeros behind it
  bool sums_apart;          // dweight is summed in f32 in the workspace and rounded once
  std::int64_t library, weight, logits, losses, scales, sums;
  std::int64_t end = 0;

 private:
  std::int64_t reserve(std::int64_t bytes) {
    const std::int64_t begin = end;
    end += aligned(bytes);
    return begin;
  }
};

/// One run of a row.
class HeadRun {
 public:
  HeadRun(const KernelArguments& arguments, const Head& head, std::size_t first_gradient)
      : a_(arguments), head_(head), layout_(head) {
    if (head.dx) dx_ = a_.outputs[first_gradient++].data;
    if (head.dweight) dweight_ = a_.outputs[first_gradient].data;
  }

  /// @param loss null: gradients only @param dloss null: no gradients
  void run(float* loss, const float* dloss) const {
    auto* mean = at<double>(layout_.scales);
    double* slope = mean + 1;
    if (loss != nullptr) target_scale(a_.context, targets(0), head_.rows, nullptr, mean);
    if (dloss != nullptr) target_scale(a_.context, targets(0), head_.rows, dloss, slope);
    if (layout_.padded && head_.rows > 0) pad_weight();
    for_each_chunk([&](std::int64_t first, std::int64_t rows) {
      run_chunk(first, rows, dloss == nullptr ? nullptr : slope);
    });
    if (head_.dweight) finish_dweight();
    if (loss != nullptr) sum_losses(a_.context, at<double>(layout_.losses), head_.rows, mean, loss);
  }

  std::vector<ProductCall> calls() const {
    std::vector<ProductCall> all;
    for_each_chunk([&](std::int64_t first, std::int64_t rows) {
      all.push_back(logits_call(first, rows));
      if (head_.dx) all.push_back(dx_call(first, rows));
      if (head_.dweight) all.push_back(dweight_call(first, rows));
    });
    return all;
  }

 private:
  template <class Body>
  void for_each_chunk(const Body& body) const {
    for (std::int64_t first = 0; first < head_.rows; first += layout_.chunk)
      body(first, std::min(layout_.chunk, head_.rows - first));
  }
  template <typename T = std::byte>
  T* at(std::int64_t offset) const {
    return reinterpret_cast<T*>(a_.workspace + offset);
  }
  const std::int32_t* targets(std::int64_t row) const {
    return a_.inputs[2].as<const std::int32_t>() + row;
  }
  void multiply(const ProductCall& call) const {
    run_product(a_.context, call.product, call.operands, at(layout_.library));
  }

  void pad_weight() const {
    const TensorView& weight = a_.inputs[1];
    const TensorView to(at(layout_.weight), weight.dtype, weight.shape);
    copy({.context = a_.context, .attributes = {}, .inputs = {&weight, 1}, .outputs = {&to, 1}});
    const std::int64_t row = head_.channels * size_of(weight.dtype);
    fill_zeros(a_.context.stream, to.data + to.bytes(),
               (layout_.vocabulary - head_.vocabulary) * row);
  }

  void run_chunk(std::int64_t first, std::int64_t rows, const double* slope) const {
    const DType dtype = head_.dtype;
    std::byte* logits = at(layout_.logits);
    multiply(logits_call(first, rows));
    const HeadRows chunk{logits, dtype, rows, head_.vocabulary, layout_.vocabulary, targets(first)};
    double* losses = at<double>(layout_.losses) + first;
    if (slope == nullptr) return negative_log_likelihood(a_.context, chunk, losses);
    negative_log_likelihood_gradient(a_.context, chunk, slope, losses);
    if (head_.dx) multiply(dx_call(first, rows));
    if (head_.dweight) multiply(dweight_call(first, rows));
  }

  /// Bytes from the first row of x, and of dx, to row `first`.
  std::int64_t offset(std::int64_t first) const {
    return first * head_.channels * size_of(head_.dtype);
  }
  /// Of as many rows as products see.
  const std::byte* weight() const {
    return layout_.padded ? at(layout_.weight) : a_.inputs[1].data;
  }
  ProductCall logits_call(std::int64_t first, std::int64_t rows) const {
    const Gemm gemm{.m = rows,
                    .n = layout_.vocabulary,
                    .k = head_.channels,
                    .transpose_b = true,
                    .dtype = head_.dtype,
                    .result = head_.dtype};
    return {{.gemm = gemm},
            {a_.inputs[0].data + offset(first), weight(), nullptr, at(layout_.logits)}};
  }
  ProductCall dx_call(std::int64_t first, std::int64_t rows) const {
    const Gemm gemm{.m = rows,
                    .n = head_.channels,
                    .k = layout_.vocabulary,
                    .dtype = head_.dtype,
                    .result = head_.dtype};
    return {{.gemm = gemm}, {at(layout_.logits), weight(), nullptr, dx_ + offset(first)}};
  }
  ProductCall dweight_call(std::int64_t first, std::int64_t rows) const {
    const Gemm gemm{.m = layout_.vocabulary,
                    .n = head_.channels,
                    .k = rows,
                    .transpose_a = true,
                    .dtype = head_.dtype,
                    .result = layout_.sums_apart ? DType::f32 : head_.dweight_dtype,
                    .accumulate = first > 0};
    return {{.gemm = gemm},
            {at(layout_.logits), a_.inputs[0].data + offset(first), nullptr,
             layout_.sums_apart ? at(layout_.sums) : dweight_}};
  }

  void finish_dweight() const {
    const Shape shape{head_.vocabulary, head_.channels};
    const TensorView to(dweight_, head_.dweight_dtype, shape);
    if (head_.rows == 0) return fill_zeros(a_.context.stream, dweight_, to.bytes());
    if (!layout_.sums_apart) return;
    const TensorView from(at(layout_.sums), DType::f32, shape);
    cast({.context = a_.context, .attributes = {}, .inputs = {&from, 1}, .outputs = {&to, 1}});
  }

  const KernelArguments& a_;
  Head head_;
  HeadLayout layout_;
  std::byte* dx_ = nullptr;
  std::byte* dweight_ = nullptr;
};

Head head_of_views(const KernelArguments& a) {
  const std::array types = {TensorType{a.inputs[0].dtype, a.inputs[0].shape},
                            TensorType{a.inputs[1].dtype, a.inputs[1].shape}};
  return head_of(types, a.attributes);
}

}  // namespace

std::int64_t head_workspace(const OpShapes& shapes) {
  return HeadLayout(head_of(shapes.inputs, shapes.attributes)).end;
}

std::vector<ProductCall> head_calls(std::string_view op, const KernelArguments& a) {
  const std::size_t first_gradient = op == "linear_cross_entropy_with_gradient" ? 1 : 0;
  return HeadRun(a, head_of_views(a), first_gradient).calls();
}

void linear_cross_entropy(const KernelArguments& a) {
  HeadRun(a, head_of_views(a), 0).run(a.outputs[0].as<float>(), nullptr);
}

void linear_cross_entropy_gradient(const KernelArguments& a) {
  HeadRun(a, head_of_views(a), 0).run(nullptr, a.inputs[3].as<const float>());
}

void linear_cross_entropy_with_gradient(const KernelArguments& a) {
  HeadRun(a, head_of_views(a), 1).run(a.outputs[0].as<float>(), a.inputs[3].as<const float>());
}

}  // namespace ashlar::cuda
