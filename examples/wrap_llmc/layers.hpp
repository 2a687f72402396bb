// The layers of a GPT-2, forward and backward, as loops over rows. A row is one position of one
// sequence; all matrices are row-major f32, and rows, channels and vocabulary are multiples of 4.
#pragma once

#include <cstdint>

using Index = std::int64_t;

struct Normed {  // what a layer norm keeps for its backward pass, one of each per row
  float *mean, *rstd;
};

/// out[r, o] = x[r, :] . w[o, :] + bias[o]; bias may be null.
void matmul_forward(float* out, const float* x, const float* w, const float* bias, Index rows,
                    Index in, Index outs);
/// Overwrites dx, adds to dw and dbias.
void matmul_backward(float* dx, float* dw, float* dbias, const float* dout, const float* x,
                     const float* w, Index rows, Index in, Index outs);

void layernorm_forward(float* out, Normed kept, const float* x, const float* w, const float* b,
                       Index rows, Index channels);
/// Adds to all three.
void layernorm_backward(float* dx, float* dw, float* db, const float* dout, Normed kept,
                        const float* x, const float* w, Index rows, Index channels);

/// qkv [batch, seq, 3, heads, size] -> out [batch, seq, heads, size]; weights [batch, heads, seq,
/// seq] are kept.
void attention_forward(float* out, float* weights, const float* qkv, int batch, int seq, int heads,
                       int size);
/// Overwrites dqkv.
void attention_backward(float* dqkv, const float* dout, const float* weights, const float* qkv,
                        int batch, int seq, int heads, int size);

void gelu_forward(float* out, const float* x, Index n);
/// In place: d is the gradient of the output, then of the input.
void gelu_backward(float* d, const float* x, Index n);

void add(float* out, const float* x, Index n);

/// Logits become probabilities. @return the sum of the rows' losses.
float softmax_cross_entropy(float* logits, const int* targets, Index rows, Index vocabulary);
