// What holds on every communicator. Each check is collective: every rank of the group calls it.
#pragma once

#include "ashlar/communicator.hpp"

namespace ashlar::test {

/// Random flats, types, counts and options against oracles, bit for bit; bytes against the formula.
void check_all_gather(Communicator& communicator, std::uint64_t seed);
void check_reduce_scatter(Communicator& communicator, std::uint64_t seed);
void check_all_reduce(Communicator& communicator, std::uint64_t seed);
void check_broadcast(Communicator& communicator, std::uint64_t seed);
void check_all_to_all(Communicator& communicator, std::uint64_t seed);
void check_messages(Communicator& communicator, std::uint64_t seed);
void check_split(Communicator& communicator);
void check_many_flats(Communicator& communicator);
void check_stream_order(Communicator& communicator);
void check_waits_at_once(Communicator& communicator);
void check_agreement(Communicator& communicator);
void check_bad_arguments(Communicator& communicator);
void check_recorder(Communicator& communicator);

/// All of the above.
void check_conformance(Communicator& communicator);

}  // namespace ashlar::test
