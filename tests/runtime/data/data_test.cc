// Text and token files, the held-out split, sampling and batches.
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/data/batch.h"
#include "runtime/data/dataset.h"
#include "runtime/data/sampler.h"
#include "runtime/data/token_file.h"

namespace sluice {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class DataTest : public ::testing::Test {
 protected:
  DataTest() : folder_(std::string(std::getenv("TEST_TMPDIR")) + "/data_XXXXXX") {
    EXPECT_NE(mkdtemp(folder_.data()), nullptr);
  }
  std::string Write(const std::string& name, const std::string& content) const {
    const std::string path = folder_ + "/" + name;
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }
  template <class T>
  static std::string Bytes(const std::vector<T>& values) {
    return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
  }
  static std::string Header(int32_t magic, int32_t version, int32_t count) {
    std::vector<int32_t> header(256);
    header[0] = magic, header[1] = version, header[2] = count;
    return Bytes(header);
  }
  static std::vector<int32_t> All(const TokenFile& file) {
    std::vector<int32_t> tokens(file.size());
    file.Read(0, absl::MakeSpan(tokens));
    return tokens;
  }
  static std::string Error(const absl::Status& status) { return std::string(status.message()); }
  absl::Status OpenText(const std::string& text, int64_t sequence, DataConfig config = {}, int64_t vocabulary = 256) {
    config.text = text;
    return Dataset::Open(config, vocabulary, sequence).status();
  }

  std::string folder_;
};

TEST_F(DataTest, TextTokensAreItsBytes) {
  const auto file = TokenFile::OpenText(Write("a.txt", std::string("h\xff\0i", 4)));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT(All(*file), ElementsAre('h', 255, 0, 'i'));
}

TEST_F(DataTest, TokenFilesWithAndWithoutHeader) {
  const std::vector<uint16_t> ids16 = {1, 500, 50256};
  const std::vector<uint32_t> ids32 = {7, 100000};
  const std::string plain16 = Write("a.bin", Bytes(ids16)), plain32 = Write("b.bin", Bytes(ids32));
  const std::string llmc16 = Write("c.bin", Header(20240520, 1, 3) + Bytes(ids16));
  const std::string llmc32 = Write("d.bin", Header(20240801, 7, 2) + Bytes(ids32));
  EXPECT_THAT(All(*TokenFile::OpenTokens(plain16, TokenWidth::kUint16, 50257)), ElementsAre(1, 500, 50256));
  EXPECT_THAT(All(*TokenFile::OpenTokens(plain32, TokenWidth::kUint32, 100001)), ElementsAre(7, 100000));
  EXPECT_THAT(All(*TokenFile::OpenTokens(llmc16, TokenWidth::kUint32, 50257)), ElementsAre(1, 500, 50256));
  EXPECT_THAT(All(*TokenFile::OpenTokens(llmc32, TokenWidth::kUint16, 100001)), ElementsAre(7, 100000));
}

TEST_F(DataTest, BadTokenFilesAreNamedWithPlaceAndRemedy) {
  const std::vector<uint16_t> ids = {1, 2, 300, 4};
  auto error = [](const std::string& path, TokenWidth width, int64_t vocabulary) {
    return Error(TokenFile::OpenTokens(path, width, vocabulary).status());
  };
  EXPECT_THAT(error(Write("big.bin", Bytes(ids)), TokenWidth::kUint16, 256),
              AllOf(HasSubstr("big.bin"), HasSubstr("token number 2 is 300"), HasSubstr("256")));
  EXPECT_THAT(error(Write("odd.bin", "abc"), TokenWidth::kUint16, 256), HasSubstr("not a multiple of 2"));
  EXPECT_THAT(error(Write("torn.bin", Header(20240520, 1, 9) + Bytes(ids)), TokenWidth::kUint16, 999),
              HasSubstr("header says 9 tokens"));
  EXPECT_THAT(error(Write("empty.bin", ""), TokenWidth::kUint16, 256), HasSubstr("empty"));
  EXPECT_THAT(error(folder_ + "/none.bin", TokenWidth::kUint16, 256), HasSubstr("none.bin: cannot open"));
  EXPECT_THAT(error(folder_, TokenWidth::kUint16, 256), HasSubstr("not a regular file"));
  const std::string pipe = folder_ + "/pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_THAT(error(pipe, TokenWidth::kUint16, 256), HasSubstr("not a regular file"));
}

TEST_F(DataTest, UnusableTextIsRefused) {
  EXPECT_THAT(Error(OpenText(folder_ + "/none.txt", 8)), HasSubstr("none.txt: cannot open"));
  EXPECT_THAT(Error(OpenText(folder_, 8)), HasSubstr("holds no files"));
  EXPECT_THAT(Error(OpenText(Write("short.txt", "12345678"), 8)),
              AllOf(HasSubstr("has 8 tokens"), HasSubstr("needs 9")));
  EXPECT_TRUE(OpenText(Write("enough.txt", "123456789"), 8).ok());
  EXPECT_THAT(Error(OpenText(folder_ + "/enough.txt", 4, {}, 128)), HasSubstr("256 ids"));
  DataConfig config;
  config.hold_out_files = {"*.md"};
  EXPECT_THAT(Error(OpenText(folder_ + "/enough.txt", 4, config)), AllOf(HasSubstr("*.md"), HasSubstr("enough.txt")));
  if (geteuid() != 0) {  // root reads everything
    chmod((folder_ + "/enough.txt").c_str(), 0);
    EXPECT_THAT(Error(OpenText(folder_ + "/enough.txt", 4)), HasSubstr("Permission denied"));
  }
}

TEST_F(DataTest, WholeFilesAreHeldOutAndNeverTrainedOn) {
  Write("01-a.txt", "aaaaaaaaaa");
  Write("02-b.txt", "bbbbbbbb");
  Write("03-c.txt", "cccccc");
  Write(".hidden", "hhhhhhhh");
  Write("04-empty.txt", "");
  DataConfig config;
  config.text = folder_;
  config.hold_out_files = {"02-*"};
  const auto dataset = Dataset::Open(config, 256, 4);
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  EXPECT_EQ(dataset->training().size(), 16);
  EXPECT_EQ(dataset->held_out().size(), 8);
  EXPECT_THAT(dataset->held_out_names(), ElementsAre("02-b.txt"));
  config.hold_out_files = {"*.txt"};
  EXPECT_THAT(Error(Dataset::Open(config, 256, 4).status()), HasSubstr("data.hold_out leaves nothing to train on"));
  std::vector<int32_t> tokens(16), pieces(16);
  dataset->training().Read(0, absl::MakeSpan(tokens), absl::MakeSpan(pieces));
  EXPECT_EQ(std::string(tokens.begin(), tokens.end()), "aaaaaaaaaacccccc");
  EXPECT_EQ(pieces[9], 0);
  EXPECT_EQ(pieces[10], 1);
}

TEST_F(DataTest, AFractionIsTheEnd) {
  DataConfig config;
  config.text = Write("t.txt", "0123456789");
  config.hold_out_fraction = 0.3;
  const auto dataset = Dataset::Open(config, 256, 4);
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  std::vector<int32_t> tokens(3), pieces(3);
  dataset->held_out().Read(0, absl::MakeSpan(tokens), absl::MakeSpan(pieces));
  EXPECT_THAT(tokens, ElementsAre('7', '8', '9'));
  EXPECT_EQ(dataset->training().size(), 7);
}

TEST(Permute, IsAPermutationForEverySizeAndDiffersByKey) {
  for (int64_t size : {1, 2, 3, 5, 16, 17, 100, 1000}) {
    std::set<int64_t> images;
    int64_t moved = 0;
    for (int64_t i = 0; i < size; ++i) {
      images.insert(Permute(i, size, 7));
      moved += Permute(i, size, 7) != Permute(i, size, 8);
    }
    EXPECT_EQ(static_cast<int64_t>(images.size()), size);
    EXPECT_GE(*images.begin(), 0);
    EXPECT_LT(*images.rbegin(), size);
    if (size >= 16) {
      EXPECT_GT(moved, size / 2);
    }
  }
}

TEST(WindowSampler, AnEpochVisitsEveryWindowOnceAndStaysInside) {
  const int64_t tokens = 1003, sequence = 10;
  WindowSampler sampler(tokens, sequence, 3);
  EXPECT_EQ(sampler.windows_per_epoch(), 100);
  for (int epoch = 0; epoch < 3; ++epoch) {
    std::set<int64_t> offsets;
    for (int64_t i = 0; i < 100; ++i) {
      const int64_t offset = sampler.Offset(epoch * 100 + i);
      EXPECT_GE(offset, 0);
      EXPECT_LE(offset + sequence + 1, tokens);
      offsets.insert(offset);
    }
    EXPECT_EQ(offsets.size(), 100u);
    EXPECT_EQ(*offsets.rbegin() - *offsets.begin(), 99 * sequence);
  }
}

class BatchTest : public DataTest {
 protected:
  Dataset Open(const std::vector<std::string>& documents, int64_t held_out_from) {
    DataConfig config;
    config.text = folder_;
    for (size_t i = 0; i < documents.size(); ++i) {
      const std::string name = std::string("doc") + static_cast<char>('a' + i);
      Write(name, documents[i]);
      if (static_cast<int64_t>(i) >= held_out_from) config.hold_out_files.push_back(name);
    }
    auto dataset = Dataset::Open(config, 256, 4);
    EXPECT_TRUE(dataset.ok()) << dataset.status();
    return *std::move(dataset);
  }
};

TEST_F(BatchTest, TheSameSamplesWhateverTheNumberOfMicroBatches) {
  const Dataset dataset = Open({"the quick brown fox jumps over the lazy dog, twice and once more."}, 9);
  Batch one({.rows = 4, .micro_batches = 1, .sequence = 4}), four({.rows = 4, .micro_batches = 4, .sequence = 4});
  BatchMaker(&dataset, one.shape, {}, 5).Training(3, &one);
  BatchMaker(&dataset, four.shape, {}, 5).Training(3, &four);
  EXPECT_EQ(one.tokens, four.tokens);
  EXPECT_EQ(one.targets, four.targets);
  EXPECT_THAT(one.samples, ElementsAre(12, 13, 14, 15));
  EXPECT_EQ(one.valid_targets, 16);
  EXPECT_EQ(four.micro_batches[2].tokens.data(), four.tokens.data() + 8);
  EXPECT_FLOAT_EQ(four.micro_batches[2].loss_scale, 1.0f / 16);
  for (int row = 0; row < 4; ++row) {
    for (int t = 0; t + 1 < 4; ++t) EXPECT_EQ(one.targets[row * 4 + t], one.tokens[row * 4 + t + 1]);
  }
}

TEST_F(BatchTest, GradientGroupsAreContiguous) {
  const Dataset dataset = Open({std::string(200, 'x')}, 9);
  Batch batch({.rows = 6, .micro_batches = 6, .sequence = 4, .gradient_groups = 2});
  BatchMaker(&dataset, batch.shape, {}, 5).Training(0, &batch);
  for (int i = 0; i < 6; ++i) {
    EXPECT_EQ(batch.micro_batches[i].gradient_group, i / 3);
  }
}

TEST_F(BatchTest, SeparateDocumentsDoNotSeeEachOther) {
  const Dataset dataset = Open({"ab", "cdefgh"}, 9);
  Batch batch({.rows = 1, .micro_batches = 1, .sequence = 7});
  BatchMaker(&dataset, batch.shape, {.separate_documents = true}, 5).Training(0, &batch);
  EXPECT_EQ(std::string(batch.tokens.begin(), batch.tokens.end()), "abcdefg");
  EXPECT_THAT(batch.targets, ElementsAre('b', -1, 'd', 'e', 'f', 'g', 'h'));
  EXPECT_THAT(batch.positions, ElementsAre(0, 1, 0, 1, 2, 3, 4));
  EXPECT_THAT(batch.first_key, ElementsAre(0, 0, 2, 2, 2, 2, 2));
  EXPECT_EQ(batch.valid_targets, 6);
  EXPECT_EQ(batch.micro_batches[0].first_key.size(), 7u);
}

TEST_F(BatchTest, EndTokensAndIgnoredTargets) {
  const Dataset dataset = Open({"ab|cd?ef"}, 9);
  Batch batch({.rows = 1, .micro_batches = 1, .sequence = 7});
  BatchMaker(&dataset, batch.shape, {.separate_documents = true, .end_token = '|', .ignore_index = '?'}, 5)
      .Training(0, &batch);
  EXPECT_THAT(batch.targets, ElementsAre('b', '|', -1, 'd', -1, 'e', 'f'));
  EXPECT_THAT(batch.positions, ElementsAre(0, 1, 2, 0, 1, 2, 3));
}

TEST_F(BatchTest, EvaluationCoversEveryHeldOutTargetOnce) {
  const std::string text = "0123456789abcdefghijklm";  // 23 tokens: 22 targets, 6 windows of 4
  const Dataset dataset = Open({"training text", text}, 1);
  Batch batch({.rows = 4, .micro_batches = 2, .sequence = 4});
  BatchMaker maker(&dataset, batch.shape, {}, 5);
  ASSERT_EQ(maker.EvaluationBatches(0), 2);
  std::string targets;
  int64_t valid = 0;
  for (int64_t i = 0; i < 2; ++i) {
    maker.Evaluation(i, 0, &batch);
    valid += batch.valid_targets;
    EXPECT_FALSE(batch.micro_batches[0].training);
    for (int32_t target : batch.targets) {
      if (target >= 0) targets += static_cast<char>(target);
    }
  }
  EXPECT_EQ(targets, text.substr(1));
  EXPECT_EQ(valid, 22);
  EXPECT_EQ(maker.EvaluationBatches(1), 1);
}

}  // namespace
}  // namespace sluice
