// sluice generate: answers of a model, through a pipeline: to one prompt, to a file of them, or to who types.
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status.h"
#include "base/world.h"
#include "nlohmann/json.hpp"
#include "runtime/generator/answer_text.h"
#include "runtime/generator/chat.h"
#include "runtime/generator/generator.h"
#include "runtime/models/model.h"
#include "spdlog/spdlog.h"
#include "tools/job_verb.h"
#include "tools/verbs.h"

namespace sluice::tools {
namespace {

using Json = nlohmann::json;

struct Arguments {
  std::string model, prompt, prompts, system, precision = "f32";
  std::vector<std::string> stops;
  bool raw = false;
  int64_t tokens_max = 256, context = 0, batch = 0, prefill = 256;
  int pp = 1, tp = 1, groups = 0, threads = 0;
  SamplingRules rules{.temperature = 0.7f, .top_p = 0.95f, .seed = 1};
};

std::string Gibibytes(int64_t bytes) { return absl::StrFormat("%.2f GiB", static_cast<double>(bytes) / (1 << 30)); }

// Bytes that the system can give without swapping; 0: it doesn't say.
int64_t AvailableBytes() {
  std::ifstream file("/proc/meminfo");
  std::string name, unit;
  for (int64_t kilobytes = 0; file >> name >> kilobytes; std::getline(file, unit)) {
    if (name == "MemAvailable:") return kilobytes * 1024;
  }
  return 0;
}

absl::Status CheckMemory(const Plan& plan) {
  const int tp = plan.job.layout.tp;
  int64_t all = 0, cache = 0;
  for (const RankReport& rank : plan.report.ranks) all += tp * rank.allocated_bytes;
  for (const StagePlan& stage : plan.stages) cache += tp * stage.memory.cache;
  const int64_t available = AvailableBytes();
  if (available == 0 || all <= available) return absl::OkStatus();
  const GenerationPlan& generating = *plan.generating;
  return absl::ResourceExhaustedError(
      absl::StrCat("generation needs ", Gibibytes(all), ", ", Gibibytes(cache), " of it for the keys and values of ",
                   generating.groups * generating.group_sequences, " sequences of ", generating.context,
                   " tokens, and this machine has ", Gibibytes(available),
                   " left: take --precision bf16, a smaller --batch, fewer --groups or a shorter --context"));
}

// What is asked, and its tokens.
struct Question {
  std::vector<ChatMessage> messages;  // of a conversation; empty: ...
  std::string prompt;                 // ... this, as it stands
  std::vector<int32_t> tokens;
};

class Session {
 public:
  explicit Session(const Arguments& arguments) : arguments_(arguments), world_(NewRealWorld()) {}

  absl::Status Run() {
    RETURN_IF_ERROR(Open());
    if (!arguments_.prompts.empty()) return AnswerFile();
    if (!arguments_.prompt.empty()) return AnswerOne();
    return Talk();
  }

 private:
  absl::Status Open() {
    const std::string path = UserPath(arguments_.model);
    ASSIGN_OR_RETURN(model_, OpenModel(path));
    if (model_.tokenizer == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat(path, " has no tokenizer: ", model_.no_tokenizer));
    }
    encoder_ = std::make_unique<Tokenizer::Encoder>(*model_.tokenizer);
    if (arguments_.raw || model_.chat_template.empty()) return absl::OkStatus();
    ASSIGN_OR_RETURN(chat_, ChatTemplate::Create(model_.chat_template));
    if (const auto end = model_.tokenizer->FindAdded(chat_->end())) model_.end_tokens.push_back(*end);
    return absl::OkStatus();
  }

  Question Ask(const std::string& prompt) const {
    if (!chat_.has_value()) return {.prompt = prompt};
    Question question;
    if (!arguments_.system.empty()) question.messages.push_back({"system", arguments_.system});
    question.messages.push_back({"user", prompt});
    return question;
  }

  absl::Status Encode(Question* question) {
    question->tokens.assign(model_.tokenizer->prefix().begin(), model_.tokenizer->prefix().end());
    if (!question->messages.empty() && !chat_.has_value()) {
      return absl::InvalidArgumentError("messages, but the model has no chat template (or --raw is given)");
    }
    RETURN_IF_ERROR(question->messages.empty()
                        ? encoder_->Encode(question->prompt, AddedTokens::kRecognized, &question->tokens)
                        : chat_->Encode(question->messages, encoder_.get(), &question->tokens));
    const auto length = static_cast<int64_t>(question->tokens.size());
    if (length == 0) return absl::InvalidArgumentError("the prompt is empty");
    if (length >= model_.context) {
      return absl::InvalidArgumentError(absl::StrCat("the prompt has ", length, " tokens, and the model's context ",
                                                     model_.context, ": no room for an answer"));
    }
    return absl::OkStatus();
  }

  // `context`: tokens of a sequence that are needed.
  absl::Status Start(int64_t questions, int64_t context) {
    GenerationSettings settings{.graph = model_.graph,
                                .precision = arguments_.precision == "bf16" ? Precision::kBF16 : Precision::kF32,
                                .prefill_tokens = arguments_.prefill};
    const std::vector<int> processors = Processors();
    settings.layout.pp = arguments_.pp;
    settings.layout.tp = arguments_.tp;
    settings.context = std::min(arguments_.context > 0 ? arguments_.context : context, model_.context);
    // Twice as many groups as ranks: while one's token travels another is at hand.
    const int64_t groups = arguments_.pp == 1 ? 1 : 2 * arguments_.pp;
    settings.groups =
        static_cast<int>(std::min<int64_t>(arguments_.groups > 0 ? arguments_.groups : groups, questions));
    const int64_t share = (questions + settings.groups - 1) / settings.groups;
    settings.group_sequences = std::min<int64_t>(arguments_.batch > 0 ? arguments_.batch : 16, share);
    const int ranks = arguments_.pp * arguments_.tp;
    const int threads =
        arguments_.threads > 0 ? arguments_.threads : std::max(1, static_cast<int>(processors.size()) / ranks);
    ASSIGN_OR_RETURN(Plan plan, MakeGenerationPlan(settings));
    RETURN_IF_ERROR(CheckMemory(plan));
    ASSIGN_OR_RETURN(generator_, TokenGenerator::Create(world_.get(), std::move(plan),
                                                        {.threads_per_rank = threads, .processors = processors},
                                                        model_.parameters.get()));
    return absl::OkStatus();
  }

  GenerationRequest RequestOf(const Question& question, int64_t number) const {
    GenerationRequest request{.prompt = question.tokens, .rules = arguments_.rules, .end_tokens = model_.end_tokens};
    const int64_t room = generator_->plan().generating->context - static_cast<int64_t>(question.tokens.size());
    request.tokens_max = std::min(arguments_.tokens_max, room);
    request.rules.sample = number;
    return request;
  }

  AnswerText NewText() const { return AnswerText(model_.tokenizer.get(), model_.end_tokens, arguments_.stops); }

  // One answer, as it comes; returns all of it.
  absl::StatusOr<std::string> Stream(const Question& question, int64_t number) {
    const GenerationRequest request = RequestOf(question, number);
    if (request.tokens_max < 1) {
      return absl::InvalidArgumentError("the conversation has filled the context: begin a new one, or give --context");
    }
    AnswerText text = NewText();
    const auto show = [](const std::string& part) {
      std::fwrite(part.data(), 1, part.size(), stdout);
      std::fflush(stdout);
    };
    RETURN_IF_ERROR(generator_->Generate({&request, 1}, [&](size_t, absl::Span<const int32_t> tokens) {
      show(text.Add(tokens));
      return !text.stopped();
    }));
    show(text.Finish() + "\n");
    return text.text();
  }

  absl::StatusOr<std::string> Answer(Question* question, int64_t number) {
    RETURN_IF_ERROR(Encode(question));
    return Stream(*question, number);
  }

  absl::Status AnswerOne() {
    Question question = Ask(arguments_.prompt);
    RETURN_IF_ERROR(Encode(&question));
    RETURN_IF_ERROR(Start(1, static_cast<int64_t>(question.tokens.size()) + arguments_.tokens_max));
    RETURN_IF_ERROR(Stream(question, 0).status());
    Report();
    return absl::OkStatus();
  }

  absl::Status Talk() {
    constexpr int64_t kTalk = 4096;  // tokens: room for a conversation, and not for the longest that a model can take
    RETURN_IF_ERROR(Start(1, kTalk));
    std::fprintf(stderr, "%s: type a line; an empty one begins anew, Ctrl-D ends.\n", model_.graph.name.c_str());
    Question question;
    std::string line;
    for (int64_t number = 0; std::fputs("> ", stderr), std::getline(std::cin, line); ++number) {
      if (line.empty() || question.messages.empty()) {
        question = line.empty() ? Question{} : Ask(line);
      } else {
        question.messages.push_back({"user", line});
      }
      if (line.empty()) continue;
      const absl::StatusOr<std::string> answer = Answer(&question, number);
      if (absl::IsInvalidArgument(answer.status())) {  // of this conversation
        std::fprintf(stderr, "%s\n", std::string(answer.status().message()).c_str());
        question = {};
        continue;
      }
      RETURN_IF_ERROR(answer.status());
      if (chat_.has_value()) question.messages.push_back({"assistant", *answer});
    }
    std::fputs("\n", stderr);
    return absl::OkStatus();
  }

  // Lines of JSON, {"prompt": "..."} or {"messages": [{"role": "user", "content": "..."}]}, or of plain text.
  absl::StatusOr<std::vector<Question>> ReadQuestions() {
    const std::string path = UserPath(arguments_.prompts);
    std::ifstream file(path);
    if (!file) return absl::NotFoundError(absl::StrCat("cannot read ", path));
    std::vector<Question> questions;
    std::string line;
    for (int number = 1; std::getline(file, line); ++number) {
      if (line.empty()) continue;
      absl::StatusOr<Question> question = QuestionOf(line);
      absl::Status status = question.ok() ? Encode(&*question) : question.status();
      if (!status.ok()) return Annotate(status, absl::StrCat(path, ":", number));
      questions.push_back(*std::move(question));
    }
    if (questions.empty()) return absl::InvalidArgumentError(absl::StrCat(path, " has no prompt"));
    return questions;
  }

  absl::StatusOr<Question> QuestionOf(const std::string& line) const {
    if (line[0] != '{') return Ask(line);
    const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (json.is_object() && json.contains("prompt") && json["prompt"].is_string()) {
      return Ask(json["prompt"].get<std::string>());
    }
    Question question;
    if (json.is_object() && json.contains("messages") && json["messages"].is_array()) {
      for (const Json& message : json["messages"]) {
        if (!message.is_object() || !message.contains("role") || !message["role"].is_string() ||
            !message.contains("content") || !message["content"].is_string()) {
          return absl::InvalidArgumentError("a message needs a role and a content, both strings");
        }
        question.messages.push_back({message["role"].get<std::string>(), message["content"].get<std::string>()});
      }
    }
    if (!question.messages.empty()) return question;
    return absl::InvalidArgumentError(
        "no JSON of the form {\"prompt\": \"...\"} or {\"messages\": [{\"role\": \"user\", \"content\": \"...\"}]}");
  }

  absl::Status AnswerFile() {
    ASSIGN_OR_RETURN(const std::vector<Question> questions, ReadQuestions());
    size_t longest = 0;
    for (const Question& question : questions) longest = std::max(longest, question.tokens.size());
    RETURN_IF_ERROR(
        Start(static_cast<int64_t>(questions.size()), static_cast<int64_t>(longest) + arguments_.tokens_max));
    std::vector<GenerationRequest> requests;
    std::vector<AnswerText> texts;
    for (const Question& question : questions) {
      requests.push_back(RequestOf(question, static_cast<int64_t>(requests.size())));
      texts.push_back(NewText());
    }
    std::vector<int64_t> counts(questions.size());
    RETURN_IF_ERROR(generator_->Generate(requests, [&](size_t i, absl::Span<const int32_t> tokens) {
      texts[i].Add(tokens);
      counts[i] += static_cast<int64_t>(tokens.size());
      const std::vector<int32_t>& ends = requests[i].end_tokens;
      const bool ended = std::find(ends.begin(), ends.end(), tokens.back()) != ends.end();
      if (ended || texts[i].stopped() || counts[i] == requests[i].tokens_max) {
        PrintAnswer(i, requests[i], &texts[i], counts[i], ended);
      }
      return !texts[i].stopped();
    }));
    Report();
    return absl::OkStatus();
  }

  static void PrintAnswer(size_t number, const GenerationRequest& request, AnswerText* text, int64_t tokens,
                          bool ended) {
    text->Finish();
    const char* const reason = text->stopped() ? "stop" : ended ? "end" : "length";
    const Json json = {{"index", number},
                       {"text", text->text()},
                       {"tokens", tokens},
                       {"prompt_tokens", request.prompt.size()},
                       {"finish", reason}};
    std::printf("%s\n", json.dump(-1, ' ', false, Json::error_handler_t::replace).c_str());
    std::fflush(stdout);
  }

  void Report() const {
    const GenerationTimes& times = generator_->times();
    const auto rate = [](int64_t tokens, Nanoseconds time) {
      return static_cast<double>(tokens) * kSecond / static_cast<double>(std::max<Nanoseconds>(time, 1));
    };
    spdlog::info("prompts: {} tokens, {:.0f} a second; answers: {:.1f} tokens a second", times.prompt_tokens,
                 rate(times.prompt_tokens, times.prefill), rate(times.decoded_tokens, times.decode));
  }

  const Arguments& arguments_;
  const std::unique_ptr<World> world_;
  PretrainedModel model_;
  std::unique_ptr<Tokenizer::Encoder> encoder_;
  std::optional<ChatTemplate> chat_;
  std::unique_ptr<TokenGenerator> generator_;
};

}  // namespace

Run AddGenerate(CLI::App& verb) {
  auto a = std::make_shared<Arguments>();
  verb.add_option("model", a->model, "a Hugging Face folder, a GGUF file, or a checkpoint of this program")->required();
  auto* prompt = verb.add_option("--prompt", a->prompt, "what to answer; without it, what is typed");
  verb.add_option("--prompts", a->prompts,
                  "a file of prompts, one a line, plain or JSON; the answers are lines of JSON")
      ->excludes(prompt);
  verb.add_option("--system", a->system, "what an instruct model is told first");
  verb.add_flag("--raw", a->raw, "take prompts as they stand, without the model's chat template");
  verb.add_option("--max-tokens", a->tokens_max, "of an answer")->check(CLI::Range(1, 1 << 30));
  verb.add_option("--temperature", a->rules.temperature, "0: the likeliest token")->check(CLI::Range(0.0f, 100.0f));
  verb.add_option("--top-k", a->rules.top_k, "draw from so many tokens; 0: all")->check(CLI::Range(0, 1 << 30));
  verb.add_option("--top-p", a->rules.top_p, "draw from the likeliest tokens with this much probability")
      ->check(CLI::Range(0.0f, 1.0f));
  verb.add_option("--repetition-penalty", a->rules.repetition_penalty, "of tokens that stand there already; 1: none")
      ->check(CLI::Range(0.01f, 100.0f));
  verb.add_option("--seed", a->rules.seed, "of the draws");
  verb.add_option("--stop", a->stops, "text at which an answer ends; may be given several times");
  verb.add_option("--precision", a->precision, "of weights and activations")->check(CLI::IsMember({"f32", "bf16"}));
  verb.add_option("--pp", a->pp, "ranks of the pipeline")->check(CLI::Range(1, 1024));
  verb.add_option("--tp", a->tp, "shards of each layer")->check(CLI::Range(1, 1024));
  verb.add_option("--threads", a->threads, "of a rank; 0: the processors shared out")->check(CLI::Range(0, 1024));
  verb.add_option("--groups", a->groups, "of sequences in flight; 0: two a rank")->check(CLI::Range(0, 4096));
  verb.add_option("--batch", a->batch, "sequences of a group; 0: up to 16")->check(CLI::Range(0, 4096));
  verb.add_option("--context", a->context, "tokens of prompt and answer; 0: what is needed")
      ->check(CLI::Range(0, 1 << 30));
  verb.add_option("--prefill", a->prefill, "tokens of prompts that are worked on at once")
      ->check(CLI::Range(1, 1 << 20));
  return [a] { return Session(*a).Run(); };
}

}  // namespace sluice::tools
