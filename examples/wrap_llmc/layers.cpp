#include "layers.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace {

constexpr Index kBlock = 4;   // rows and columns of a product that stay in registers
constexpr Index kPanel = 64;  // rows of the right-hand side that stay in cache

/// out[r, :] += sum over k of factor[r * row_step + k * sum_step] * x[k, :].
void accumulate(float* out, const float* factor, Index row_step, Index sum_step, const float* x,
                Index rows, Index sums, Index width) {
  for (Index panel = 0; panel < sums; panel += kPanel)
    for (Index r = 0; r < rows; r += kBlock)
      for (Index k = panel; k < std::min(panel + kPanel, sums); k += kBlock) {
        float f[kBlock][kBlock];
        for (Index a = 0; a < kBlock; ++a)
          for (Index b = 0; b < kBlock; ++b)
            f[a][b] = factor[(r + a) * row_step + (k + b) * sum_step];
        const float *x0 = x + k * width, *x1 = x0 + width, *x2 = x1 + width, *x3 = x2 + width;
        for (Index a = 0; a < kBlock; ++a) {
          float* row = out + (r + a) * width;
          for (Index i = 0; i < width; ++i)
            row[i] += f[a][0] * x0[i] + f[a][1] * x1[i] + f[a][2] * x2[i] + f[a][3] * x3[i];
        }
      }
}

float dot(const float* x, const float* y, Index n) {
  float sum = 0;
  for (Index i = 0; i < n; ++i) sum += x[i] * y[i];
  return sum;
}

void axpy(float* out, float factor, const float* x, Index n) {
  for (Index i = 0; i < n; ++i) out[i] += factor * x[i];
}

constexpr float kGelu = 0.7978845608F;  // sqrt(2 / pi)

}  // namespace

void matmul_forward(float* out, const float* x, const float* w, const float* bias, Index rows,
                    Index in, Index outs) {
  for (Index o = 0; o < outs; o += kBlock)
    for (Index r = 0; r < rows; r += kBlock) {
      float sum[kBlock][kBlock] = {};
      const float *xr = x + r * in, *wo = w + o * in;
      for (Index i = 0; i < in; ++i)
        for (Index a = 0; a < kBlock; ++a)
          for (Index b = 0; b < kBlock; ++b) sum[a][b] += xr[a * in + i] * wo[b * in + i];
      for (Index a = 0; a < kBlock; ++a)
        for (Index b = 0; b < kBlock; ++b)
          out[(r + a) * outs + o + b] = sum[a][b] + (bias == nullptr ? 0 : bias[o + b]);
    }
}

void matmul_backward(float* dx, float* dw, float* dbias, const float* dout, const float* x,
                     const float* w, Index rows, Index in, Index outs) {
  std::fill_n(dx, rows * in, 0.0F);
  accumulate(dx, dout, outs, 1, w, rows, outs, in);
  accumulate(dw, dout, 1, outs, x, outs, rows, in);
  if (dbias == nullptr) return;
  for (Index r = 0; r < rows; ++r) add(dbias, dout + r * outs, outs);
}

void layernorm_forward(float* out, Normed kept, const float* x, const float* w, const float* b,
                       Index rows, Index channels) {
  const auto n = static_cast<float>(channels);
  for (Index r = 0; r < rows; ++r, x += channels, out += channels) {
    float mean = 0, variance = 0;
    for (Index i = 0; i < channels; ++i) mean += x[i] / n;
    for (Index i = 0; i < channels; ++i) variance += (x[i] - mean) * (x[i] - mean) / n;
    const float rstd = 1 / std::sqrt(variance + 1e-5F);
    for (Index i = 0; i < channels; ++i) out[i] = (x[i] - mean) * rstd * w[i] + b[i];
    kept.mean[r] = mean;
    kept.rstd[r] = rstd;
  }
}

void layernorm_backward(float* dx, float* dw, float* db, const float* dout, Normed kept,
                        const float* x, const float* w, Index rows, Index channels) {
  const auto n = static_cast<float>(channels);
  for (Index r = 0; r < rows; ++r, x += channels, dx += channels, dout += channels) {
    const float mean = kept.mean[r], rstd = kept.rstd[r];
    float sum = 0, product = 0;
    for (Index i = 0; i < channels; ++i) {
      const float normed = (x[i] - mean) * rstd, d = dout[i] * w[i];
      sum += d / n;
      product += d * normed / n;
      dw[i] += dout[i] * normed;
      db[i] += dout[i];
    }
    for (Index i = 0; i < channels; ++i)
      dx[i] += rstd * (dout[i] * w[i] - sum - (x[i] - mean) * rstd * product);
  }
}

void attention_forward(float* out, float* weights, const float* qkv, int batch, int seq, int heads,
                       int size) {
  const Index channels = Index{heads} * size, row = 3 * channels;
  const float scale = 1 / std::sqrt(static_cast<float>(size));
  for (Index b = 0; b < batch; ++b)
    for (Index h = 0; h < heads; ++h)
      for (Index t = 0; t < seq; ++t, weights += seq) {
        const float* q = qkv + (b * seq + t) * row + h * size;
        const float* k = qkv + b * seq * row + channels + h * size;
        float largest = -INFINITY, total = 0;
        for (Index s = 0; s <= t; ++s) {
          weights[s] = scale * dot(q, k + s * row, size);
          largest = std::max(largest, weights[s]);
        }
        for (Index s = 0; s <= t; ++s) total += weights[s] = std::exp(weights[s] - largest);
        float* o = out + (b * seq + t) * channels + h * size;
        std::fill_n(o, size, 0.0F);
        for (Index s = 0; s <= t; ++s) axpy(o, weights[s] /= total, k + channels + s * row, size);
      }
}

void attention_backward(float* dqkv, const float* dout, const float* weights, const float* qkv,
                        int batch, int seq, int heads, int size) {
  const Index channels = Index{heads} * size, row = 3 * channels;
  const float scale = 1 / std::sqrt(static_cast<float>(size));
  std::vector<float> d(static_cast<std::size_t>(seq));
  std::fill_n(dqkv, batch * seq * row, 0.0F);
  for (Index b = 0; b < batch; ++b)
    for (Index h = 0; h < heads; ++h)
      for (Index t = 0; t < seq; ++t, weights += seq) {
        const Index query = (b * seq + t) * row + h * size;
        const Index key = b * seq * row + channels + h * size;
        const float* o = dout + (b * seq + t) * channels + h * size;
        float mean = 0;
        for (Index s = 0; s <= t; ++s) {
          const Index value = key + channels + s * row;
          const float dw = dot(o, qkv + value, size);
          d[static_cast<std::size_t>(s)] = dw;
          mean += weights[s] * dw;
          axpy(dqkv + value, weights[s], o, size);
        }
        for (Index s = 0; s <= t; ++s) {
          const float ds = scale * weights[s] * (d[static_cast<std::size_t>(s)] - mean);
          axpy(dqkv + query, ds, qkv + key + s * row, size);
          axpy(dqkv + key + s * row, ds, qkv + query, size);
        }
      }
}

void gelu_forward(float* out, const float* x, Index n) {
  for (Index i = 0; i < n; ++i)
    out[i] = 0.5F * x[i] * (1 + std::tanh(kGelu * (x[i] + 0.044715F * x[i] * x[i] * x[i])));
}

void gelu_backward(float* d, const float* x, Index n) {
  for (Index i = 0; i < n; ++i) {
    const float square = x[i] * x[i];
    const float tanh = std::tanh(kGelu * x[i] * (1 + 0.044715F * square));
    const float slope = kGelu * (1 + 3 * 0.044715F * square) * (1 - tanh * tanh);
    d[i] *= 0.5F * (1 + tanh + x[i] * slope);
  }
}

void add(float* out, const float* x, Index n) {
  for (Index i = 0; i < n; ++i) out[i] += x[i];
}

float softmax_cross_entropy(float* logits, const int* targets, Index rows, Index vocabulary) {
  float loss = 0;
  for (Index r = 0; r < rows; ++r, logits += vocabulary) {
    const float largest = *std::max_element(logits, logits + vocabulary);
    float total = 0;
    for (Index i = 0; i < vocabulary; ++i) total += logits[i] = std::exp(logits[i] - largest);
    for (Index i = 0; i < vocabulary; ++i) logits[i] /= total;
    loss -= std::log(logits[targets[r]]);
  }
  return loss;
}
