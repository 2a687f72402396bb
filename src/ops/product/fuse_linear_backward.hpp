// Joins the products of linear's backward with the passes over memory beside them.
#pragma once

#include "ashlar/op.hpp"

namespace ashlar {

/// Where the backend has kernels for the rows that join them, of nodes of one unit: x^T dy and the
/// column sums of dy become linear_weight_gradient; dy weight^T and the gelu_columns_backward that
/// alone reads it become linear_gelu_backward. The CPU has none: there it would save no pass, and
/// its rows need less memory apart. Runs after differentiation, before sharding. Values may get
/// other ids.
Graph fuse_linear_backward(Graph graph, const Backend& backend);

}  // namespace ashlar
