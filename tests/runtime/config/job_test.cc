// What a job file may say, and what is said about one that is wrong: proto/text and runtime/config.
#include "runtime/config/job.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/job.pb.h"
#include "proto/text.h"
#include "runtime/config/paths.h"

namespace sluice {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr char kSmall[] = R"(model { layers: 4 channels: 64 heads: 4 }
data { text: "books" }
training { steps: 10 batch: 12 micro_batches: 6 sequence: 32 }
layout { pp: 2 }
)";

std::string ErrorOf(const std::string& text, std::vector<std::string> overrides = {}) {
  const auto job =
      ParseJob(text, "jobs/a.textproto", {.user_directory = "/home/me", .overrides = std::move(overrides)});
  return job.ok() ? "" : std::string(job.status().message());
}

// Other algorithms are other bits: who has another file has another job.
TEST(Job, AlgorithmsArePartOfTheFingerprint) {
  const std::string path = testing::TempDir() + "/algorithms.txt";
  const auto fingerprint = [&](const char* text) {
    std::ofstream(path) << text;
    const auto job = ParseJob(kSmall, "a.textproto", {.overrides = {"layout.algorithms=" + path}});
    EXPECT_TRUE(job.ok()) << job.status();
    EXPECT_EQ(job->layout.algorithms_text, text);
    return job->fingerprint;
  };
  EXPECT_EQ(fingerprint("one"), fingerprint("one"));
  EXPECT_NE(fingerprint("one"), fingerprint("two"));
  EXPECT_THAT(ErrorOf(kSmall, {"layout.algorithms=none.txt"}),
              AllOf(HasSubstr("none.txt"), HasSubstr("sluice profile"), HasSubstr("--algorithms")));
}

TEST(Job, ModelThatExistsSaysTheGraphAndWhereParametersBegin) {
  const std::string model = std::filesystem::absolute("tests/golden/models/gpt2");
  const std::string text = absl::StrCat("model { from: '", model, "' dropout: 0.1 } data { tokens: 'x.bin' } training { sequence: 16 }");
  const auto job = ParseJob(text, "a.textproto");
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->graph.vocabulary, 40);
  EXPECT_EQ(job->graph.max_sequence, 32);
  EXPECT_FLOAT_EQ(job->graph.nodes[1].dropout, 0.1f);
  EXPECT_NE(job->initial, nullptr);
  EXPECT_EQ(ParseJob(kSmall, "a.textproto")->initial, nullptr);
  EXPECT_THAT(ErrorOf(text, {"model.from=no/where"}), HasSubstr("/home/me/no/where"));
  EXPECT_THAT(ErrorOf(text, {"model.layers=3"}), HasSubstr("says all of itself"));
  // Its tokens are no bytes.
  EXPECT_THAT(ErrorOf(absl::StrCat("model { from: '", model, "' } data { text: 'books' } training { sequence: 16 }")),
              HasSubstr("sluice tokenize"));
}

TEST(Job, DefaultsStandBesideTheFields) {
  const auto job = ParseJob(kSmall, "jobs/a.textproto", {.user_directory = "/home/me"});
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->graph.nodes.size(), 11u);
  EXPECT_EQ(job->graph.vocabulary, 256);
  EXPECT_EQ(job->graph.max_sequence, 32);
  EXPECT_EQ(job->training.rows_per_micro_batch(), 2);
  EXPECT_EQ(job->optimizer.decay_steps, 10);
  EXPECT_DOUBLE_EQ(job->optimizer.minimum_learning_rate, 3e-5);
  EXPECT_EQ(job->schedule.name, "1f1b");
  EXPECT_THAT(job->training.recompute, ElementsAre(Recomputation::kNone, Recomputation::kNone));
  EXPECT_TRUE(job->layout.memory_limit.empty());
}

TEST(Job, LeftOutChunksAreThoseOfTheSchedule) {
  for (const auto& [name, chunks] :
       {std::pair("1f1b", 1), {"zb_v", 2}, {"v_half", 2}, {"interleaved_1f1b", 2}, {"hanayo", 2}}) {
    const auto job = ParseJob(kSmall, "a", {.overrides = {absl::StrCat("schedule.name=", name)}});
    ASSERT_TRUE(job.ok()) << job.status();
    EXPECT_EQ(job->layout.chunks, chunks) << name;
    EXPECT_EQ(job->training.recompute.size(), 2u * chunks) << name;
  }
}

TEST(Job, TheDefaultNumberOfMicroBatchesDoesNotDependOnTheLayout) {
  for (const char* pp : {"1", "2", "4"}) {
    const auto job = ParseJob(R"(model { layers: 4 channels: 64 heads: 4 } data { text: "t" } training { batch: 12 })",
                              "a", {.overrides = {std::string("layout.pp=") + pp}});
    ASSERT_TRUE(job.ok()) << job.status();
    EXPECT_EQ(job->training.micro_batches, 6);
  }
}

TEST(Job, EveryFieldArrives) {
  const auto job = ParseJob(R"(
format_version: 1
model { family: "llama" layers: 2 channels: 32 heads: 4 kv_heads: 2 head_size: 8 width: 48 positions: 64 vocabulary: 300
        tied: true dropout: 0.25 rope_theta: 500 norm_epsilon: 1e-6 }
data { tokens: "a.bin" tokens: "/b.bin" token_type: uint32 hold_out { fraction: 0.1 }
       documents { separate: true end_token: 299 } ignore_index: 298 }
training { steps: 7 batch: 8 micro_batches: 4 sequence: 16 precision: bf16 seed: 9 gradient_groups: 2
           recompute_stages: [full, selective] evaluate_every: 3 evaluate_batches: 5 stop_after_nonfinite: 4 }
optimizer { learning_rate: 0.1 warm_up: 2 minimum_learning_rate: 0.01 decay_steps: 6 beta1: 0.8 beta2: 0.9 epsilon: 1e-7
            weight_decay: 0.2 clip_norm: 0.5 }
layout { pp: 2 threads_per_rank: 3 pin: false layers_per_stage: [5, 2] memory_limit: "1500MB" memory_limit: "2GiB" }
schedule { name: "gpipe" queues: edge receive_ahead: 2 send_slots: 3 post_validation: true }
sample { prompt: "In" length: 5 temperature: 0 seed: 3 }
output { metrics: "m.jsonl" trace: "/t.json" trace_from: 1 trace_steps: 2 quiet: true }
watchdog { seconds: 1.5 }
)",
                            "/jobs/a.textproto", {.user_directory = "/home/me"});
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->graph.vocabulary, 300);
  EXPECT_EQ(job->graph.nodes[1].kv_heads, 2);
  EXPECT_EQ(job->graph.nodes[1].rope_theta, 500.0f);
  EXPECT_EQ(job->graph.nodes[1].dropout, 0.25f);
  EXPECT_EQ(job->graph.nodes[2].width, 48);
  EXPECT_THAT(job->data.tokens, ElementsAre("/jobs/a.bin", "/b.bin"));
  EXPECT_EQ(job->data.token_type, TokenType::kUint32);
  EXPECT_EQ(job->data.hold_out_fraction, 0.1);
  EXPECT_TRUE(job->data.separate_documents);
  EXPECT_EQ(job->data.end_token, 299);
  EXPECT_EQ(job->data.ignore_index, 298);
  EXPECT_EQ(job->training.precision, Precision::kBF16);
  EXPECT_EQ(job->training.seed, 9u);
  EXPECT_EQ(job->training.gradient_groups, 2);
  EXPECT_THAT(job->training.recompute, ElementsAre(Recomputation::kFull, Recomputation::kSelective));
  EXPECT_EQ(job->optimizer.clip_norm, 0.5);
  EXPECT_EQ(job->optimizer.decay_steps, 6);
  EXPECT_THAT(job->layout.layers_per_stage, ElementsAre(5, 2));
  EXPECT_THAT(job->layout.memory_limit, ElementsAre(1'500'000'000, int64_t{2} << 30));
  EXPECT_FALSE(job->layout.pin);
  EXPECT_EQ(job->layout.threads_per_rank, 3);
  EXPECT_EQ(job->schedule.queues, QueuePolicy::kOnePerEdge);
  EXPECT_EQ(job->schedule.send_slots, 3);
  EXPECT_TRUE(job->schedule.post_validation);
  EXPECT_EQ(job->sample.temperature, 0);
  EXPECT_EQ(job->output.metrics, "/home/me/m.jsonl");
  EXPECT_EQ(job->output.trace, "/t.json");
  EXPECT_EQ(job->watchdog_seconds, 1.5);
}

TEST(Job, PathsInTheFileAreRelativeToItAndThoseOnTheCommandLineToTheUser) {
  auto job = ParseJob(kSmall, "/jobs/a.textproto", {.user_directory = "/home/me"});
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->data.text, "/jobs/books");
  job = ParseJob(kSmall, "/jobs/a.textproto", {.user_directory = "/home/me", .overrides = {"data.text=../x y.txt"}});
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->data.text, "/home/x y.txt");
  EXPECT_EQ(UserDirectory("/there"), "/there");
  EXPECT_FALSE(UserDirectory(nullptr).empty());
  EXPECT_EQ(FolderOf("a"), ".");
}

TEST(Job, CutsByNameBecomeCounts) {
  const auto job =
      ParseJob(kSmall, "a", {.overrides = {"layout.pp=3", "layout.cut_before=[\"h.1.mlp\", \"lm_head\"]"}});
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_THAT(job->layout.layers_per_stage, ElementsAre(4, 6, 1));
}

TEST(Job, UnknownFieldsAreNamedWithPlaceAndTheNearestKnownOne) {
  EXPECT_EQ(ErrorOf("model { layers: 4 }\ntraining {\n  batchs: 12\n}"),
            "jobs/a.textproto:3:9: unknown field \"batchs\" in Training; did you mean \"batch\"?");
  EXPECT_EQ(ErrorOf(kSmall, {"trainin.batch=3"}),
            "--set trainin.batch=3: unknown field \"trainin\" in Job; did you mean \"training\"?");
  EXPECT_THAT(ErrorOf("training { precision: f16 }"), HasSubstr("a.textproto:1:27: "));
  EXPECT_THAT(ErrorOf("training { steps: }"), HasSubstr("a.textproto:1:19: "));
}

struct Wrong {
  const char* assignment;
  const char* expected;
};

TEST(Job, ImpossibleNumbersAreRefusedWithWhatToDo) {
  for (const Wrong& wrong : {
           Wrong{"model.heads=5", "heads 5 must divide channels 64"},
           Wrong{"model.heads=0", "model.heads is 0; it must be from 1"},
           Wrong{"model.layers=-1", "model.layers is -1"},
           Wrong{"model.dropout=1", "it must be at least 0 and below 1"},
           Wrong{"model.dropout=nan", "model.dropout is nan"},
           Wrong{"model.family=gpt3", "unknown family \"gpt3\"; known: gpt2, llama, mlp; did you mean gpt2?"},
           Wrong{"model.preset=125M", "124M, 355M"},
           Wrong{"model.vocabulary=100", "at least 256, not 100"},
           Wrong{"model.positions=16", "sequence 32 is longer than the 16 positions"},
           Wrong{"training.micro_batches=5", "micro_batches 5 must divide batch 12: 1, 2, 3, 4, 6, 12"},
           Wrong{"training.batch=0", "training.batch is 0"},
           Wrong{"training.steps=0", "training.steps is 0; it must be at least 1"},
           Wrong{"training.gradient_groups=4", "gradient_groups 4 must divide micro_batches 6: 1, 2, 3, 6"},
           Wrong{"training.recompute_stages=[full]", "recompute_stages has 1 entries; there are 2 stages"},
           Wrong{"layout.pp=12", "12 stages are more than the model's 11 layers; at most 11 ranks"},
           Wrong{"layout.pp=0", "layout.pp is 0"},
           Wrong{"layout.dp=4", "dp 4 must divide training.micro_batches 6 (each replica works on as many of them)"},
           Wrong{"layout.dp=0", "layout.dp is 0"},
           Wrong{"layout.zero1=true", "it needs dp above 1"},
           Wrong{"layout.sequence_parallel=true", "it needs tp above 1"},
           Wrong{"layout.rank_order=pp-dp", "it must name tp, dp and pp once each"},
           Wrong{"training.check_replicas_every=-1", "training.check_replicas_every is -1"},
           Wrong{"layout.tp=3", "can't be split over 3 tensor-parallel shards: its 4 heads don't divide evenly"},
           Wrong{"layout.tp=64", "there may be 1 to 32"},
           Wrong{"layout.layers_per_stage=[3, 4, 5]", "the cuts make 3 stages; pp x chunks is 2"},
           Wrong{"layout.layers_per_stage=[6, 4]", "the stages have 10 layers together; the model has 11"},
           Wrong{"layout.layers_per_stage=[11, 0]", "a stage of 0 layers is not possible"},
           Wrong{"layout.cut_before=h.1.mpl", "there is no layer \"h.1.mpl\"; did you mean \"h.1.mlp\"?"},
           Wrong{"layout.cut_before=wte", "leaves a stage empty"},
           Wrong{"layout.memory_limit=lots", "\"lots\" is no size; write 1500MB"},
           Wrong{"schedule.name=1f1", "did you mean 1f1b?"},
           Wrong{"schedule.name=forward_only", "forward_only is not for training"},
           Wrong{"layout.chunks=2", "1f1b has 1 stage per rank, not 2: set layout { chunks: 1 } in a job"},
           Wrong{"schedule.send_slots=0", "schedule.send_slots is 0"},
           Wrong{"schedule.in_flight_cap=-1", "schedule.in_flight_cap is -1"},
           Wrong{"schedule.group_size=-2", "schedule.group_size is -2"},
           Wrong{"schedule.file=no.csv", "cannot read"},
           Wrong{"optimizer.learning_rate=0", "it must be above 0"},
           Wrong{"optimizer.beta2=1", "optimizer.beta2 is 1"},
           Wrong{"optimizer.minimum_learning_rate=1", "is above learning_rate"},
           Wrong{"data.tokens=a.bin", "both text and tokens"},
           Wrong{"data.text=", "data needs text"},
           Wrong{"data.hold_out.fraction=1", "data.hold_out.fraction is 1"},
           Wrong{"data.ignore_index=256", "256 is no token id of a vocabulary of 256"},
           Wrong{"format_version=2", "this program understands 1"},
       }) {
    const std::string error = ErrorOf(kSmall, {wrong.assignment});
    EXPECT_THAT(error, HasSubstr(wrong.expected)) << wrong.assignment;
    EXPECT_THAT(error, testing::AnyOf(HasSubstr(std::string("--set ") + wrong.assignment), HasSubstr("a.textproto:")));
  }
}

TEST(Job, GradientGroupsAreAMultipleOfReplicasAndCopies) {
  EXPECT_EQ(ParseJob(kSmall, "/d/a.textproto", {.overrides = {"layout.dp=3"}})->training.gradient_groups, 3);
  EXPECT_THAT(ErrorOf(kSmall, {"layout.dp=2", "training.gradient_groups=3"}),
              HasSubstr("gradient_groups 3 must be a multiple of dp 2; leave it out, or write 2"));
  EXPECT_THAT(ErrorOf(kSmall, {"training.batch=24", "training.micro_batches=24", "layout.dp=3", "schedule.name=dual_pipe",
                              "training.gradient_groups=3"}),
              HasSubstr("gradient_groups 3 must be a multiple of dp 3 x 2 copies of the model"));
}

TEST(Job, ErrorsNameTheLineAndAllOfThemAreShown) {
  EXPECT_EQ(ErrorOf(R"(model { layers: 4 channels: 64 heads: 4 }
data { text: "books" }
training {
  batch: 12
  micro_batches: 5
}
optimizer { minimum_learning_rate: 2 }
)"),
            "jobs/a.textproto:5: micro_batches 5 must divide batch 12: 1, 2, 3, 4, 6, 12\n"
            "jobs/a.textproto:7: minimum_learning_rate 2 is above learning_rate 0.0003");
}

TEST(Job, AScheduleFileSaysRanksStagesAndMicroBatches) {
  const std::string folder = std::getenv("TEST_TMPDIR");
  std::ofstream(folder + "/two.csv") << "0F0,0F1,0B0,0B1,2F0,2B0,2F1,2B1\n1F0,1F1,1B0,1B1\n";
  std::ofstream(folder + "/both.csv") << "0F0,0B0,1F1@1,1B1@1\n1F0,1B0,0F1@1,0B1@1\n";
  const auto parse = [&](const std::string& rest, const std::string& file = "two.csv") {
    return ParseJob("model { layers: 4 channels: 64 heads: 4 }\ndata { text: 't' }\n" + rest + "\nschedule { file: '" +
                        file + "' }",
                    folder + "/job", {.user_directory = "/elsewhere"});
  };
  const auto refusal = [&](const std::string& rest, const std::string& file = "two.csv") {
    return std::string(parse(rest, file).status().message());
  };
  const auto job = parse("training { batch: 4 }");
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->layout.pp, 2);
  EXPECT_EQ(job->layout.stages(), 3);
  EXPECT_EQ(job->training.micro_batches, 2);
  EXPECT_EQ(job->training.recompute.size(), 3u);
  EXPECT_EQ(job->training.gradient_groups, 1);
  EXPECT_EQ(parse("training { batch: 4 }", "both.csv")->training.gradient_groups, 2);
  EXPECT_TRUE(parse("layout { pp: 2 chunks: 2 } training { batch: 4 micro_batches: 2 }").ok());

  EXPECT_THAT(refusal("layout { pp: 4 } training { batch: 4 }"),
              AllOf(HasSubstr("job:3: layout.pp is 4, but the schedule in "), HasSubstr("has 2 ranks; leave it out, or write 2")));
  EXPECT_THAT(refusal("training { batch: 4 micro_batches: 4 }"),
              HasSubstr("has 2 micro-batches; leave it out, or write 2"));
  EXPECT_THAT(refusal("layout { chunks: 3 } training { batch: 4 }"), HasSubstr("has 3 stages on 2 ranks"));
  EXPECT_THAT(refusal("training { batch: 3 }"), HasSubstr("micro_batches 2 must divide batch 3"));
  EXPECT_THAT(refusal("", "none.csv"), HasSubstr("job:4: cannot read"));
  EXPECT_THAT(refusal("training { batch: 4 gradient_groups: 1 }", "both.csv"),
              HasSubstr("gradient_groups 1 must be a multiple of the 2 copies of the model"));
  std::ofstream(folder + "/two.csv") << "0F0,0B0\n1F0,xB0\n";
  EXPECT_THAT(refusal(""), HasSubstr("two.csv:2:5: expected the number of a stage, found 'x'"));
  std::ofstream(folder + "/two.csv") << "0F0\n1F0\n";
  EXPECT_THAT(refusal(""), HasSubstr("two.csv is not for training"));
  std::ofstream(folder + "/two.csv") << "0F0,0B0,0F1@1,0B1@1\n1F0,1B0,1F1@1,1B1@1\n";
  EXPECT_THAT(refusal(""), HasSubstr("stage s of the second one must be on rank p-1-r"));
  EXPECT_THAT(std::string(ParseJob("schedule { name: '1f1b' file: 'two.csv' }", folder + "/job").status().message()),
              HasSubstr("schedule has both a name and a file"));
}

TEST(Job, FilesThatCannotBeRead) {
  EXPECT_TRUE(absl::IsNotFound(LoadJob("/nowhere/job.textproto").status()));
  EXPECT_THAT(LoadJob("/tmp").status().message(), HasSubstr("not a regular file"));
  const std::string path = testing::TempDir() + "/job.textproto";
  std::ofstream(path) << kSmall;
  EXPECT_TRUE(LoadJob("job.textproto", {.user_directory = testing::TempDir()}).ok());
}

TEST(Job, BytesAreReadWithUnits) {
  EXPECT_EQ(ParseBytes("1500MB"), 1'500'000'000);
  EXPECT_EQ(ParseBytes("1.5 GiB"), 3 * (int64_t{1} << 29));
  EXPECT_EQ(ParseBytes("4096"), 4096);
  for (const char* bad : {"", "GB", "-1", "0", "1e40", "nan", "2 GX"}) EXPECT_FALSE(ParseBytes(bad)) << bad;
}

TEST(LearningRate, WarmsUpLinearlyAndThenFollowsACosine) {
  const OptimizerConfig optimizer{.learning_rate = 1, .warm_up = 4, .minimum_learning_rate = 0.1, .decay_steps = 12};
  EXPECT_DOUBLE_EQ(LearningRate(optimizer, 0), 0.25);
  EXPECT_DOUBLE_EQ(LearningRate(optimizer, 3), 1);
  EXPECT_DOUBLE_EQ(LearningRate(optimizer, 4), 1);
  EXPECT_DOUBLE_EQ(LearningRate(optimizer, 8), 0.55);
  EXPECT_DOUBLE_EQ(LearningRate(optimizer, 12), 0.1);
  EXPECT_DOUBLE_EQ(LearningRate(optimizer, 1000), 0.1);
}

TEST(Override, SetsScalarsStringsEnumsListsAndElements) {
  proto::Job job;
  const auto set = [&job](absl::string_view assignment) { return std::string(Override(assignment, job).message()); };
  EXPECT_EQ(set("training.steps=10"), "");
  EXPECT_EQ(set("training.steps=20"), "");
  EXPECT_EQ(set("training.precision=bf16"), "");
  EXPECT_EQ(set("data.text=a=b c"), "");
  EXPECT_EQ(set("data.tokens=[\"x\", \"y\"]"), "");
  EXPECT_EQ(set("data.tokens.1=z"), "");
  EXPECT_EQ(set("data.tokens.2=w"), "");
  EXPECT_EQ(set("layout.layers_per_stage=[1, 2]"), "");
  EXPECT_EQ(set("layout.layers_per_stage.0=7"), "");
  EXPECT_EQ(set("optimizer={ beta1: 0.5 }"), "");
  EXPECT_EQ(job.training().steps(), 20);
  EXPECT_EQ(job.training().precision(), proto::Training::bf16);
  EXPECT_EQ(job.data().text(), "a=b c");
  EXPECT_THAT(job.data().tokens(), ElementsAre("x", "z", "w"));
  EXPECT_THAT(job.layout().layers_per_stage(), ElementsAre(7, 2));
  EXPECT_EQ(job.optimizer().beta1(), 0.5);
}

TEST(Override, SaysWhatIsWrong) {
  proto::Job job;
  const auto set = [&job](absl::string_view assignment) { return std::string(Override(assignment, job).message()); };
  EXPECT_THAT(set("steps"), HasSubstr("expected path=value"));
  EXPECT_THAT(set("training.steps=ten"), HasSubstr("\"ten\" is no value for steps (int64)"));
  EXPECT_THAT(set("training.precision=f16"), HasSubstr("known: f32 bf16"));
  EXPECT_THAT(set("training.steps.x=1"), HasSubstr("steps has no fields"));
  EXPECT_THAT(set("data.tokens.5=a"), HasSubstr("tokens has 0 elements; index 0 appends"));
  EXPECT_THAT(set("data.tokens.x=a"), HasSubstr("expected an index, not \"x\""));
}

}  // namespace
}  // namespace sluice
