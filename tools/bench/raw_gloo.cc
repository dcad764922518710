#include "tools/bench/raw_gloo.h"

#include <gloo/transport/context.h>
#include <gloo/transport/pair.h>
#include <gloo/transport/tcp/device.h>
#include <gloo/transport/unbound_buffer.h>

#include <string>
#include <vector>

#include "base/check.h"

namespace sluice {
namespace {

constexpr int kPlaces = 4;
constexpr uint64_t kTag = 1;

}  // namespace

struct RawGloo::State {
  int peer;
  std::vector<std::vector<char>> memory;
  std::shared_ptr<gloo::transport::Device> device;
  std::shared_ptr<gloo::transport::Context> context;
  std::vector<std::unique_ptr<gloo::transport::UnboundBuffer>> sends, receives;
};

RawGloo::RawGloo(int process, const ExchangeBlobs& exchange, size_t bytes_max) : state_(std::make_unique<State>()) {
  state_->peer = 1 - process;
  state_->device = gloo::transport::tcp::CreateDevice(gloo::transport::tcp::attr("127.0.0.1"));
  state_->context = state_->device->createContext(process, 2);
  state_->context->setTimeout(std::chrono::minutes(10));
  auto& pair = state_->context->createPair(state_->peer);
  const std::vector<char> mine = pair->address().bytes();
  const auto all = exchange("raw gloo", std::string(mine.begin(), mine.end()));
  CHECK_OK(all.status());
  const std::string& peer = (*all)[state_->peer];
  pair->connect(std::vector<char>(peer.begin(), peer.end()));
  for (int i = 0; i < 2 * kPlaces; ++i) {
    state_->memory.emplace_back(bytes_max, 1);
    auto& buffers = i < kPlaces ? state_->sends : state_->receives;
    buffers.push_back(state_->context->createUnboundBuffer(state_->memory.back().data(), bytes_max));
  }
}

RawGloo::~RawGloo() = default;

void RawGloo::Send(int place, size_t bytes) { state_->sends[place]->send(state_->peer, kTag, 0, bytes); }
void RawGloo::WaitSend(int place) { state_->sends[place]->waitSend(); }
void RawGloo::Recv(int place, size_t bytes) { state_->receives[place]->recv(state_->peer, kTag, 0, bytes); }
void RawGloo::WaitRecv(int place) { state_->receives[place]->waitRecv(); }

}  // namespace sluice
