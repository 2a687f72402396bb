// A two-layer network in plain C arrays, as somebody has it who never heard of Ashlar.
#include <cmath>
#include <cstdio>
#include <vector>

constexpr int kInputs = 64, kHidden = 512, kClasses = 8, kBatch = 32;

struct Tensor {
  const char* name;
  int count;
  std::vector<float> values, gradients;
};
enum { kW1, kB1, kW2, kB2 };
std::vector<Tensor> tensors{{"w1", kHidden* kInputs, {}, {}},
                            {"b1", kHidden, {}, {}},
                            {"w2", kClasses* kHidden, {}, {}},
                            {"b2", kClasses, {}, {}}};

float uniform(unsigned& state) {  // in [-1, 1)
  state = state * 1664525U + 1013904223U;
  return static_cast<float>(state >> 8) / (1 << 23) - 1;
}

/// The class of a point is the direction, of eight, that it lies in most.
void load(int batch, float* x, int* label) {
  unsigned state = 12345U + 7919U * static_cast<unsigned>(batch);
  for (int b = 0; b < kBatch; ++b, x += kInputs) {
    float sums[kClasses] = {};
    for (int i = 0; i < kInputs; ++i) sums[i % kClasses] += x[i] = uniform(state);
    label[b] = 0;
    for (int c = 1; c < kClasses; ++c)
      if (sums[c] > sums[label[b]]) label[b] = c;
  }
}

/// Adds to the gradients. @return the mean loss of the batch.
float forward_backward(const float* x, const int* label) {
  const float *w1 = tensors[kW1].values.data(), *b1 = tensors[kB1].values.data();
  const float *w2 = tensors[kW2].values.data(), *b2 = tensors[kB2].values.data();
  float *dw1 = tensors[kW1].gradients.data(), *db1 = tensors[kB1].gradients.data();
  float *dw2 = tensors[kW2].gradients.data(), *db2 = tensors[kB2].gradients.data();
  float loss = 0;
  for (int b = 0; b < kBatch; ++b, x += kInputs) {
    float h[kHidden], dh[kHidden] = {}, y[kClasses], sum = 0;
    for (int j = 0; j < kHidden; ++j) {
      h[j] = b1[j];
      for (int i = 0; i < kInputs; ++i) h[j] += w1[j * kInputs + i] * x[i];
      h[j] = h[j] > 0 ? h[j] : 0;
    }
    for (int c = 0; c < kClasses; ++c) {
      y[c] = b2[c];
      for (int j = 0; j < kHidden; ++j) y[c] += w2[c * kHidden + j] * h[j];
      sum += y[c] = std::exp(y[c]);
    }
    loss -= std::log(y[label[b]] / sum) / kBatch;
    for (int c = 0; c < kClasses; ++c) {
      const float dy = (y[c] / sum - (c == label[b] ? 1.0F : 0.0F)) / kBatch;
      db2[c] += dy;
      for (int j = 0; j < kHidden; ++j) {
        dw2[c * kHidden + j] += dy * h[j];
        dh[j] += dy * w2[c * kHidden + j];
      }
    }
    for (int j = 0; j < kHidden; ++j) {
      if (h[j] <= 0) continue;
      db1[j] += dh[j];
      for (int i = 0; i < kInputs; ++i) dw1[j * kInputs + i] += dh[j] * x[i];
    }
  }
  return loss;
}

/// AdamW, by the book.
void update(int step) {
  static std::vector<std::vector<float>> m(4), v(4);
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    Tensor& tensor = tensors[t];
    m[t].resize(tensor.values.size());
    v[t].resize(tensor.values.size());
    for (std::size_t i = 0; i < tensor.values.size(); ++i) {
      const float g = tensor.gradients[i];
      m[t][i] = 0.9F * m[t][i] + 0.1F * g;
      v[t][i] = 0.999F * v[t][i] + 0.001F * g * g;
      const float m_hat = m[t][i] / (1 - std::pow(0.9F, static_cast<float>(step)));
      const float v_hat = v[t][i] / (1 - std::pow(0.999F, static_cast<float>(step)));
      tensor.values[i] -= 1e-3F * (m_hat / (std::sqrt(v_hat) + 1e-8F) + 0.01F * tensor.values[i]);
    }
  }
}

int main() {
  unsigned state = 1;
  for (Tensor& t : tensors) {
    const float scale = t.count > kHidden ? 0.1F : 0.0F;  // biases begin at zero
    for (int i = 0; i < t.count; ++i) t.values.push_back(scale * uniform(state));
    t.gradients.resize(t.values.size());
  }
  std::vector<float> x(kBatch * kInputs);
  int label[kBatch];
  float mean = 0;
  for (int step = 1; step <= 600; ++step) {
    for (Tensor& t : tensors) t.gradients.assign(t.gradients.size(), 0);
    load(step, x.data(), label);
    const float loss = forward_backward(x.data(), label);
    update(step);
    mean += (loss - mean) / 50;
  }
  std::printf("loss %.4f\n", mean);
  return mean < 0.5F ? 0 : 1;
}
