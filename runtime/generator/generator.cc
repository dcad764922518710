#include "runtime/generator/generator.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"

namespace sluice {
namespace {

std::vector<uint32_t> SeenBits(absl::Span<const int32_t> tokens, int64_t vocabulary) {
  std::vector<uint32_t> seen(SeenWords(vocabulary));
  for (const int32_t token : tokens) seen[token / 32] |= 1u << (token % 32);
  return seen;
}

}  // namespace

// Micro-batches of tokens, each token a row of its own.
struct TokenGenerator::Items {
  struct Item {
    std::vector<int32_t> tokens, positions, sequences;
    std::vector<int32_t> draws, drawn_sequences,
        drawn_positions;  // draws: tokens of this item after which one is drawn

    void Add(int32_t token, int64_t sequence, int64_t position) {
      tokens.push_back(token);
      positions.push_back(static_cast<int32_t>(position));
      sequences.push_back(static_cast<int32_t>(sequence));
    }
    // After the token added last.
    void Draw(int64_t position) {
      draws.push_back(static_cast<int32_t>(tokens.size()) - 1);
      drawn_sequences.push_back(sequences.back());
      drawn_positions.push_back(static_cast<int32_t>(position));
    }
    MicroBatchInfo Info() const {
      return {.rows = static_cast<int64_t>(tokens.size()),
              .sequence = 1,
              .tokens = tokens,
              .positions = positions,
              .training = false,
              .logits_of = draws,
              .sequences = sequences,
              .drawn_sequences = drawn_sequences,
              .drawn_positions = drawn_positions};
    }
  };
  std::vector<Item> items;

  std::vector<MicroBatchInfo> Infos(size_t begin, size_t count) const {
    std::vector<MicroBatchInfo> infos;
    for (size_t i = begin; i < begin + count; ++i) infos.push_back(items[i].Info());
    return infos;
  }
};

absl::StatusOr<std::unique_ptr<TokenGenerator>> TokenGenerator::Create(World* world, Plan plan,
                                                                       const PipelineOptions& options,
                                                                       const ParameterSource* parameters) {
  CHECK(plan.generating.has_value()) << "a plan for training";
  auto generator = std::unique_ptr<TokenGenerator>(new TokenGenerator(world, std::move(plan)));
  ASSIGN_OR_RETURN(generator->pipeline_, Pipeline::Create(world, generator->plan_, options));
  if (parameters != nullptr) {
    RETURN_IF_ERROR(generator->pipeline_->Restore(*parameters, RestoredState::kParameters));
  }
  generator->places_.resize(generator->generating().groups * generator->generating().group_sequences);
  return generator;
}

absl::Status TokenGenerator::CheckRequests() const {
  for (size_t i = 0; i < requests_.size(); ++i) {
    const GenerationRequest& request = requests_[i];
    const auto error = [&](auto... what) {
      return absl::InvalidArgumentError(absl::StrCat("prompt ", i + 1, " ", what...));
    };
    const auto length = static_cast<int64_t>(request.prompt.size()), context = generating().context;
    if (length == 0) return error("has no token");
    if (request.tokens_max < 1) return error("wants no token");
    if (length + request.tokens_max > context) {
      return error("has ", length, " tokens, and ", request.tokens_max, " more are wanted: the context has ", context);
    }
    const auto [low, high] = std::minmax_element(request.prompt.begin(), request.prompt.end());
    if (*low < 0 || *high >= plan_.job.graph.vocabulary) {
      return error("has token ", *low < 0 ? *low : *high, "; the vocabulary has ", plan_.job.graph.vocabulary);
    }
  }
  return absl::OkStatus();
}

absl::Status TokenGenerator::Generate(absl::Span<const GenerationRequest> requests, const OnTokens& on_tokens) {
  requests_ = requests;
  on_tokens_ = &on_tokens;
  RETURN_IF_ERROR(CheckRequests());
  std::fill(places_.begin(), places_.end(), Place{});
  std::deque<size_t> waiting(requests.size());
  std::iota(waiting.begin(), waiting.end(), 0);
  const auto working = [](const Place& place) { return place.request >= 0; };
  for (;;) {
    RETURN_IF_ERROR(TakeIn(&waiting));
    if (std::any_of(places_.begin(), places_.end(), working)) {
      RETURN_IF_ERROR(Decode());
    } else if (waiting.empty()) {
      return absl::OkStatus();
    }
  }
}

// Group by group in turn, so that all have something to do.
absl::Status TokenGenerator::TakeIn(std::deque<size_t>* waiting) {
  std::vector<int64_t> taken;
  const int64_t groups = generating().groups, size = generating().group_sequences;
  for (int64_t i = 0; i < groups * size && !waiting->empty(); ++i) {
    const int64_t number = i % groups * size + i / groups;
    Place& place = places_[number];
    if (place.request >= 0) continue;
    const size_t request = waiting->front();
    waiting->pop_front();
    place = {.request = static_cast<int64_t>(request), .left = requests_[request].tokens_max};
    taken.push_back(number);
    RETURN_IF_ERROR(pipeline_->BeginSequence(number, requests_[request].rules,
                                             SeenBits(requests_[request].prompt, plan_.job.graph.vocabulary)));
  }
  return taken.empty() ? absl::OkStatus() : Prefill(taken);
}

// The prompts one after another, cut into micro-batches wherever one is full.
absl::Status TokenGenerator::Prefill(const std::vector<int64_t>& places) {
  const Nanoseconds began = world_->Now();
  Items all;
  std::vector<std::pair<size_t, size_t>> drawn_at;  // of each place: micro-batch, and which of what is drawn there
  for (const int64_t number : places) {
    const std::vector<int32_t>& prompt = requests_[places_[number].request].prompt;
    for (size_t i = 0; i < prompt.size(); ++i) {
      const bool full = all.items.empty() ||
                        static_cast<int64_t>(all.items.back().tokens.size()) == generating().prefill_tokens ||
                        static_cast<int64_t>(all.items.back().draws.size()) == generating().group_sequences;
      if (full) all.items.emplace_back();
      all.items.back().Add(prompt[i], number, static_cast<int64_t>(i));
    }
    places_[number].length = static_cast<int64_t>(prompt.size());
    all.items.back().Draw(places_[number].length);
    drawn_at.emplace_back(all.items.size() - 1, all.items.back().draws.size() - 1);
    times_.prompt_tokens += static_cast<int64_t>(prompt.size());
  }
  const size_t width = generating().group_sequences, several = generating().prefill.micro_batches;
  std::vector<int32_t> drawn(all.items.size() * width);
  for (size_t begin = 0; begin < all.items.size();) {
    const bool many = all.items.size() - begin >= several;
    const size_t count = many ? several : 1;
    RETURN_IF_ERROR(pipeline_->Generate(many ? GenerationPass::kPrefill : GenerationPass::kPrefillOne,
                                        all.Infos(begin, count),
                                        absl::MakeSpan(drawn).subspan(begin * width, count * width)));
    begin += count;
  }
  times_.prefill += world_->Now() - began;
  for (size_t i = 0; i < places.size(); ++i) {
    Give(places[i], {&drawn[drawn_at[i].first * width + drawn_at[i].second], 1});
  }
  return absl::OkStatus();
}

// Those at work; where there are none the group goes round all the same, with a place whose tokens nobody takes.
std::vector<int64_t> TokenGenerator::PlacesOfGroup(int group) const {
  const int64_t size = generating().group_sequences, first = group * size;
  std::vector<int64_t> places;
  for (int64_t number = first; number < first + size; ++number) {
    if (places_[number].request >= 0) places.push_back(number);
  }
  if (places.empty()) places.push_back(first);
  return places;
}

absl::Status TokenGenerator::Decode() {
  const Nanoseconds began = world_->Now();
  const int groups = generating().groups, rounds = generating().rounds;
  const int64_t last = generating().context - 1;  // an answer that has ended goes on here
  std::vector<std::vector<int64_t>> places;
  for (int group = 0; group < groups; ++group) places.push_back(PlacesOfGroup(group));
  Items all;
  for (int round = 0; round < rounds; ++round) {
    for (int group = 0; group < groups; ++group) {
      Items::Item& item = all.items.emplace_back();
      for (const int64_t number : places[group]) {
        const int64_t position = std::min(places_[number].length + round, last);
        item.Add(places_[number].last, number, position);
        item.Draw(std::min(position + 1, last));
      }
    }
  }
  const size_t width = generating().group_sequences;
  std::vector<int32_t> drawn(all.items.size() * width);
  RETURN_IF_ERROR(pipeline_->Generate(GenerationPass::kDecode, all.Infos(0, all.items.size()), absl::MakeSpan(drawn)));
  times_.decode += world_->Now() - began;
  for (int group = 0; group < groups; ++group) {
    for (size_t i = 0; i < places[group].size(); ++i) {
      std::vector<int32_t> tokens;
      for (int round = 0; round < rounds; ++round) tokens.push_back(drawn[(round * groups + group) * width + i]);
      Place& place = places_[places[group][i]];
      if (place.request < 0) continue;
      place.length += rounds;
      times_.decoded_tokens += std::min<int64_t>(rounds, place.left);
      Give(places[group][i], tokens);
    }
  }
  return absl::OkStatus();
}

void TokenGenerator::Give(int64_t number, absl::Span<const int32_t> tokens) {
  Place& place = places_[number];
  const GenerationRequest& request = requests_[place.request];
  tokens = tokens.first(std::min<size_t>(tokens.size(), place.left));
  const auto end =
      std::find_first_of(tokens.begin(), tokens.end(), request.end_tokens.begin(), request.end_tokens.end());
  const bool ends = end != tokens.end();
  if (ends) tokens = tokens.first(end - tokens.begin() + 1);
  place.left -= static_cast<int64_t>(tokens.size());
  place.last = tokens.back();
  const bool wanted = (*on_tokens_)(static_cast<size_t>(place.request), tokens);
  if (ends || !wanted || place.left == 0) place = {};
}

}  // namespace sluice
