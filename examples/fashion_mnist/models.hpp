// The two classifiers and what they are trained on.
#pragma once

#include "ashlar/graph.hpp"
#include "ashlar/ops.hpp"

namespace vision {

/// images (N, 28, 28, 1) -> logits (N, 10).
using Classifier = ashlar::Value (*)(ashlar::Tracer& tracer, ashlar::Value images);

/// 784 -> 256 -> 128 -> 10, gelu between.
ashlar::Value mlp(ashlar::Tracer& tracer, ashlar::Value images);
/// Two convolutions, each with max pooling and gelu, then 1568 -> 128 -> 10.
ashlar::Value cnn(ashlar::Tracer& tracer, ashlar::Value images);

/// A weight of normal values whose variance is 2 / `fan_in` (He et al., arXiv:1502.01852), and a
/// bias of zeros.
ashlar::Value weight(ashlar::Tracer& tracer, const char* name, const ashlar::Shape& shape,
                     std::int64_t fan_in);
ashlar::Value bias(ashlar::Tracer& tracer, const char* name, std::int64_t size);

/// Mean cross entropy over inputs "images" f32 (samples, 28, 28, 1) and "labels" i32 (samples).
ashlar::Value classifier_loss(ashlar::Tracer& tracer, Classifier classifier, std::int64_t samples);
/// Output "logits" f32 (samples, 10) of "images".
void classifier_logits(ashlar::Tracer& tracer, Classifier classifier, std::int64_t samples);

}  // namespace vision
