// f32 and bf16 products by oneDNN, one thread per call. Its scratch is ours.
#include <dlfcn.h>
#include <fmt/format.h>

#include <dnnl.hpp>

#include "ashlar/error.hpp"
#include "ops/product/gemm.hpp"

namespace ashlar {
namespace {

using Memory = dnnl::memory;

/// oneDNN takes the caller's OpenMP setting for its own: 1 while this lives.
class OneThread {
 public:
  OneThread() : previous_(openmp().threads == nullptr ? 1 : openmp().threads()) {
    if (previous_ != 1) openmp().set_threads(1);
  }
  ~OneThread() {
    if (previous_ != 1) openmp().set_threads(previous_);
  }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  struct OpenMp {
    int (*threads)() = nullptr;
    void (*set_threads)(int) = nullptr;
  };
  /// The OpenMP library that oneDNN brought along; none when oneDNN is built without.
  static const OpenMp& openmp() {
    static const OpenMp library{
        reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "omp_get_max_threads")),
        reinterpret_cast<void (*)(int)>(dlsym(RTLD_DEFAULT, "omp_set_num_threads"))};
    return library;
  }

  int previous_;
};

Memory::data_type type_of(DType dtype) {
  if (dtype == DType::f32) return Memory::data_type::f32;
  if (dtype == DType::bf16) return Memory::data_type::bf16;
  throw InvalidArgument("oneDNN multiplies f32 and bf16");
}

/// A (rows, columns) matrix whose rows as they lie are `leading` elements apart.
Memory::desc matrix(std::int64_t rows, std::int64_t columns, bool transposed, std::int64_t leading,
                    DType dtype) {
  return {Memory::dims{rows, columns}, type_of(dtype),
          transposed ? Memory::dims{1, leading} : Memory::dims{leading, 1}};
}

dnnl::primitive_attr attributes(bool accumulate) {
  dnnl::primitive_attr result;
  result.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (accumulate) {
    dnnl::post_ops post;
    post.append_sum(1.0F);
    result.set_post_ops(post);
  }
  return result;
}

class OneDnnGemm final : public GemmKernel {
 public:
  OneDnnGemm(const Gemm& gemm, bool pack_b)
      : engine_(dnnl::engine::kind::cpu, 0),
        stream_(engine_),
        a_(matrix(gemm.m, gemm.k, gemm.transpose_a, gemm.lda, gemm.dtype)),
        b_(matrix(gemm.k, gemm.n, gemm.transpose_b, gemm.ldb, gemm.dtype)),
        c_(matrix(gemm.m, gemm.n, false, gemm.ldc, gemm.result)) {
    const OneThread one;
    const Memory::desc b =
        pack_b ? Memory::desc(b_.dims(), b_.data_type(), Memory::format_tag::any) : b_;
    if (gemm.bias) bias_ = Memory::desc({1, gemm.n}, type_of(gemm.dtype), Memory::format_tag::ab);
    const dnnl::matmul::desc operation =
        gemm.bias ? dnnl::matmul::desc(a_, b, bias_, c_) : dnnl::matmul::desc(a_, b, c_);
    const dnnl::matmul::primitive_desc product(operation, attributes(gemm.accumulate), engine_);
    product_ = dnnl::matmul(product);
    scratch_ = product.scratchpad_desc();
    packed_ = product.weights_desc();
    if (packed_ == b_) return;
    const dnnl::reorder::primitive_desc pack(engine_, b_, engine_, packed_, attributes(false));
    pack_ = dnnl::reorder(pack);
    pack_scratch_ = pack.scratchpad_desc();
  }

  std::int64_t workspace_bytes() const override {
    return scratch_offset() + aligned(bytes(scratch_)) + aligned(bytes(pack_scratch_));
  }

  void run(const std::byte* a, const std::byte* b, const std::byte* bias, std::byte* c,
           std::byte* workspace) const override {
    const OneThread one;
    std::byte* scratch = workspace + scratch_offset();
    Memory weights = memory(b_, b);
    if (pack_) {
      const Memory packed = memory(packed_, workspace);
      pack_.execute(stream_, {{DNNL_ARG_FROM, weights},
                              {DNNL_ARG_TO, packed},
                              {DNNL_ARG_SCRATCHPAD,
                               memory(pack_scratch_, scratch + aligned(bytes(scratch_)))}});
      weights = packed;
    }
    std::unordered_map<int, Memory> arguments = {{DNNL_ARG_SRC, memory(a_, a)},
                                                 {DNNL_ARG_WEIGHTS, weights},
                                                 {DNNL_ARG_DST, memory(c_, c)},
                                                 {DNNL_ARG_SCRATCHPAD, memory(scratch_, scratch)}};
    if (bias != nullptr) arguments.emplace(DNNL_ARG_BIAS, memory(bias_, bias));
    product_.execute(stream_, arguments);
  }

 private:
  static std::int64_t bytes(const Memory::desc& desc) {
    return static_cast<std::int64_t>(desc.get_size());
  }
  std::int64_t scratch_offset() const { return pack_ ? aligned(bytes(packed_)) : 0; }
  Memory memory(const Memory::desc& desc, const std::byte* data) const {
    return {desc, engine_, const_cast<std::byte*>(data)};  // oneDNN's handles are not const
  }

  dnnl::engine engine_;
  mutable dnnl::stream stream_;  // the CPU's has no state that a run changes
  Memory::desc a_, b_, c_, bias_, packed_, scratch_, pack_scratch_;
  dnnl::matmul product_;
  dnnl::reorder pack_;
};

}  // namespace

std::unique_ptr<GemmKernel> make_onednn_gemm(const Gemm& gemm, bool pack_b) {
  try {
    return std::make_unique<OneDnnGemm>(gemm, pack_b);
  } catch (const dnnl::error& error) {
    throw Error(fmt::format("oneDNN has no product ({}, {}) x ({}, {}) of {}: {}", gemm.m, gemm.k,
                            gemm.k, gemm.n, name_of(gemm.dtype), error.what()));
  }
}

}  // namespace ashlar
