// Failures that every rank throws together.
#pragma once

namespace ashlar {

/// A second base of what `collectively` and `require_agreement` throw, beside the failure's class:
/// every rank throws it with the same message, so one rank can speak for all.
class CollectiveFailure {};

}  // namespace ashlar
