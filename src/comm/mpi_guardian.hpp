// MPICH's launcher kills all ranks the moment that one is killed, so that the others cannot say
// what they missed. A guardian stands between the launcher and a rank: it holds that news back a
// little.
#pragma once

namespace ashlar::detail {

/// Forks: the child returns and goes on as this rank, the parent stays behind as its guardian and
/// ends as the child ends. Does nothing when the process has several threads already.
void stand_guard();

}  // namespace ashlar::detail
