// The table at the end of a run: bytes by category and bytes sent, per rank, beside what ZeRO's
// formulas say.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "ashlar/sharding.hpp"
#include "report/closed_form.hpp"
#include "train_gpt/metrics.hpp"
#include "train_gpt/options.hpp"

namespace train_gpt {

using ashlar::ModelStateBytes;
using ashlar::state_formula;
using ashlar::traffic_formula;
using ashlar::TrafficFormula;
using ashlar::ZeroCase;

/// @param ranks all of them @param tied the head uses the token embedding.
ZeroCase zero_case(const Options& options, int ranks, bool tied, const ashlar::FlatLayout& layout);

/// What one rank measured.
struct RankReport {
  ModelStateBytes state;
  PeakBytes peak;
  ashlar::SentBytes sent{};  // per step
};

/// One column per rank up to four, else the lowest and the highest.
std::string report_table(const ZeroCase& zero, std::span<const RankReport> ranks);

}  // namespace train_gpt
