// f32 and bf16 products by oneDNN, one thread per call. Its scratch is ours.
#include <dlfcn.h>
#include <fmt/format.h>

#include <array>
#include <atomic>
#include <dnnl.hpp>
#include <optional>
#include <utility>
#include <vector>

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

/// A primitive's arguments as its C interface takes them: the C++ one makes a map for every call.
template <std::size_t N>
class Arguments {
 public:
  Arguments(const dnnl::engine& engine, const std::array<std::pair<int, Memory::desc>, N>& what) {
    for (std::size_t i = 0; i < N; ++i) {
      memories_[i] = Memory(what[i].second, engine, DNNL_MEMORY_NONE);
      arguments_[i] = {what[i].first, memories_[i].get()};
    }
  }
  /// @param data one for each argument; a last one that is null is left out
  void execute(const dnnl::primitive& primitive, const dnnl::stream& stream,
               const std::array<const std::byte*, N>& data) {
    const std::size_t count = data[N - 1] == nullptr ? N - 1 : N;
    for (std::size_t i = 0; i < count; ++i)
      memories_[i].set_data_handle(const_cast<std::byte*>(data[i]));  // not const in oneDNN
    dnnl::error::wrap_c_api(dnnl_primitive_execute(primitive.get(), stream.get(),
                                                   static_cast<int>(count), arguments_.data()),
                            "could not execute a primitive");
  }

 private:
  std::array<Memory, N> memories_;
  std::array<dnnl_exec_arg_t, N> arguments_ = {};
};

class OneDnnGemm final : public GemmKernel {
 public:
  OneDnnGemm(const Gemm& gemm, bool pack_b, std::int64_t at_once)
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
    if (packed_ != b_) {
      const dnnl::reorder::primitive_desc pack(engine_, b_, engine_, packed_, attributes(false));
      pack_ = dnnl::reorder(pack);
      pack_scratch_ = pack.scratchpad_desc();
    }
    for (std::int64_t i = 0; i < at_once; ++i) calls_.push_back(std::make_unique<Call>(*this));
  }

  std::int64_t workspace_bytes() const override {
    return scratch_offset() + aligned(bytes(scratch_)) + aligned(bytes(pack_scratch_));
  }

  void run(const std::byte* a, const std::byte* b, const std::byte* bias, std::byte* c,
           std::byte* workspace) const override {
    const OneThread one;
    const auto run = [&](Call& call) {
      std::byte* scratch = workspace + scratch_offset();
      if (call.pack)
        call.pack->execute(pack_, stream_, {b, workspace, scratch + aligned(bytes(scratch_))});
      call.product.execute(product_, stream_, {a, pack_ ? workspace : b, c, scratch, bias});
    };
    for (const std::unique_ptr<Call>& call : calls_) {
      if (call->taken.test_and_set(std::memory_order_acquire)) continue;
      const std::unique_ptr<Call, GiveBack> mine(call.get());
      return run(*mine);
    }
    Call another(*this);
    run(another);
  }

 private:
  /// What a run points at its operands, ready before it; runs at the same time have one each.
  struct Call {
    explicit Call(const OneDnnGemm& gemm)
        : product(gemm.engine_, {{{DNNL_ARG_SRC, gemm.a_},
                                  {DNNL_ARG_WEIGHTS, gemm.packed_},
                                  {DNNL_ARG_DST, gemm.c_},
                                  {DNNL_ARG_SCRATCHPAD, gemm.scratch_},
                                  {DNNL_ARG_BIAS, gemm.bias_}}}) {
      if (!gemm.pack_) return;
      pack.emplace(gemm.engine_, std::array<std::pair<int, Memory::desc>, 3>{
                                     {{DNNL_ARG_FROM, gemm.b_},
                                      {DNNL_ARG_TO, gemm.packed_},
                                      {DNNL_ARG_SCRATCHPAD, gemm.pack_scratch_}}});
    }
    std::atomic_flag taken;
    std::optional<Arguments<3>> pack;
    Arguments<5> product;
  };
  struct GiveBack {
    void operator()(Call* call) const { call->taken.clear(std::memory_order_release); }
  };

  static std::int64_t bytes(const Memory::desc& desc) {
    return static_cast<std::int64_t>(desc.get_size());
  }
  std::int64_t scratch_offset() const { return pack_ ? aligned(bytes(packed_)) : 0; }

  dnnl::engine engine_;
  dnnl::stream stream_;
  Memory::desc a_, b_, c_, bias_, packed_, scratch_, pack_scratch_;
  dnnl::matmul product_;
  dnnl::reorder pack_;
  std::vector<std::unique_ptr<Call>> calls_;
};

}  // namespace

std::unique_ptr<GemmKernel> make_onednn_gemm(const Gemm& gemm, bool pack_b, std::int64_t at_once) {
  try {
    return std::make_unique<OneDnnGemm>(gemm, pack_b, at_once);
  } catch (const dnnl::error& error) {
    throw Error(fmt::format("oneDNN has no product ({}, {}) x ({}, {}) of {}: {}", gemm.m, gemm.k,
                            gemm.k, gemm.n, name_of(gemm.dtype), error.what()));
  }
}

}  // namespace ashlar
