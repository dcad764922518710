#include "runtime/tokenizer/tokenize_files.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/data/token_file.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

class TokenizeFilesTest : public testing::Test {
 protected:
  TokenizeFilesTest() : world_(NewRealWorld()), tokenizer_(*Tokenizer::Open("tests/golden/tokenizer/gpt2.json")) {
    folder_ = fs::path(testing::TempDir()) / "tokenize_files_test";
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~TokenizeFilesTest() override { fs::remove_all(folder_); }

  std::string Write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return folder_ / name;
  }
  std::string Path(const std::string& name) const { return folder_ / name; }
  std::vector<int32_t> Read(const std::string& path) {
    auto file = TokenFile::OpenTokens(path, TokenWidth::kUint32, tokenizer_.vocabulary());
    EXPECT_TRUE(file.ok()) << file.status();
    std::vector<int32_t> ids(file->size());
    file->Read(0, absl::MakeSpan(ids));
    return ids;
  }
  std::vector<int32_t> Encode(const std::string& text) {
    std::vector<int32_t> ids;
    EXPECT_TRUE(Tokenizer::Encoder(tokenizer_).Encode(text, AddedTokens::kLiteral, &ids).ok());
    return ids;
  }

  std::unique_ptr<World> world_;
  Tokenizer tokenizer_;
  fs::path folder_;
};

// Large enough for many chunks; every line differs.
std::string LongText() {
  std::string text;
  for (int line = 0; text.size() < 5'000'000; ++line) text += "line " + std::to_string(line * 7919) + " of this book\n";
  return text;
}

TEST_F(TokenizeFilesTest, ManyThreadsWriteWhatOneEncoderMakesOfTheWholeText) {
  const std::string text = LongText(), small = "In the beginning <|endoftext|>";
  TokenizeOptions options{
      .inputs = {Write("long.txt", text), Write("small.txt", small)}, .output = Path("out.bin"), .end = 0};
  std::vector<int32_t> expected = Encode(text);
  expected.push_back(0);
  for (const int32_t id : Encode(small)) expected.push_back(id);
  expected.push_back(0);
  for (const int threads : {1, 3, 8}) {
    options.threads = threads;
    const auto report = TokenizeFiles(world_.get(), tokenizer_, options);
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_EQ(report->documents, 2);
    EXPECT_EQ(report->bytes, static_cast<int64_t>(text.size() + small.size()));
    EXPECT_EQ(report->tokens, static_cast<int64_t>(expected.size()));
    EXPECT_EQ(Read(options.output), expected) << threads << " threads";
  }
}

TEST_F(TokenizeFilesTest, EachTextHasItsFile) {
  const TokenizeOptions options{
      .inputs = {Write("one.txt", "first"), Write("two.txt", "second")}, .output = folder_, .each = true, .threads = 2};
  const auto report = TokenizeFiles(world_.get(), tokenizer_, options);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->files, (std::vector<std::string>{Path("one.bin"), Path("two.bin")}));
  EXPECT_EQ(Read(Path("one.bin")), Encode("first"));
  EXPECT_EQ(Read(Path("two.bin")), Encode("second"));
}

TEST_F(TokenizeFilesTest, NothingIsWrittenWhenATextIsMissing) {
  const TokenizeOptions options{.inputs = {Write("one.txt", "first"), Path("none.txt")}, .output = Path("out.bin")};
  const auto report = TokenizeFiles(world_.get(), tokenizer_, options);
  ASSERT_FALSE(report.ok());
  EXPECT_NE(report.status().message().find("none.txt"), absl::string_view::npos) << report.status();
  EXPECT_FALSE(fs::exists(options.output));
  EXPECT_FALSE(fs::exists(options.output + ".partial"));
}

TEST_F(TokenizeFilesTest, ATextIsNotWrittenOver) {
  const TokenizeOptions options{.inputs = {Write("one.bin", "first")}, .output = folder_, .each = true};
  const auto report = TokenizeFiles(world_.get(), tokenizer_, options);
  ASSERT_FALSE(report.ok());
  EXPECT_NE(report.status().message().find("one.bin"), absl::string_view::npos) << report.status();
  EXPECT_EQ(fs::file_size(Path("one.bin")), 5u);
}

TEST_F(TokenizeFilesTest, TwoTextsOfOneNameAreRefused) {
  fs::create_directories(folder_ / "more");
  const TokenizeOptions options{
      .inputs = {Write("one.txt", "first"), Write("more/one.txt", "second")}, .output = folder_, .each = true};
  const auto report = TokenizeFiles(world_.get(), tokenizer_, options);
  ASSERT_FALSE(report.ok());
  EXPECT_NE(report.status().message().find("one.bin"), absl::string_view::npos) << report.status();
}

}  // namespace
}  // namespace sluice
