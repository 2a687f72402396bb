#include "ashlar/dry_run.hpp"

#include "simulate/engine.hpp"
#include "simulate/recording_communicator.hpp"

namespace ashlar {

struct DryRun::Implementation {
  simulate::RecordingCommunicator communicator;
};

DryRun::DryRun(int ranks)
    : implementation_(new Implementation{simulate::RecordingCommunicator(ranks)}) {}
DryRun::~DryRun() = default;
DryRun::DryRun(DryRun&&) noexcept = default;

Communicator& DryRun::communicator() { return implementation_->communicator; }
void DryRun::kernel(const Cost& cost, DType dtype) {
  implementation_->communicator.kernel(cost, dtype);
}
void DryRun::clear() { implementation_->communicator.clear(); }

DryRunTimes DryRun::times(const std::string& cluster) const {
  const simulate::Workload work =
      implementation_->communicator.workload(simulate::cluster(cluster));
  const simulate::RankClass all[] = {{work.ranks, 1}};
  const simulate::StepTimes times = simulate::run(work, all);
  return {static_cast<double>(times.end) * 1e-12,
          static_cast<double>(times.classes[0].exposed()) * 1e-12,
          static_cast<double>(times.in_flight) * 1e-12, work.sent_bytes};
}

}  // namespace ashlar
