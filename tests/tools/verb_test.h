// A verb of `sluice` as it is typed. Each test stands in an empty folder of its own, as `bazel run` would have it.
#pragma once

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tools/verbs.h"

namespace sluice {

template <tools::Run (*kAdd)(CLI::App&)>
class VerbTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = ::testing::TempDir() + "/verb";
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    setenv("BUILD_WORKING_DIRECTORY", folder_.c_str(), 1);
  }

  // The words after the verb. Errors of the command line come as INVALID_ARGUMENT.
  static absl::Status Call(std::vector<std::string> words) {
    CLI::App verb;
    const tools::Run run = kAdd(verb);
    std::reverse(words.begin(), words.end());
    try {
      verb.parse(words);
    } catch (const CLI::ParseError& error) {
      return absl::InvalidArgumentError(error.what());
    }
    return run();
  }
  static std::string Printed(const std::vector<std::string>& words) {
    ::testing::internal::CaptureStdout();
    const absl::Status status = Call(words);
    std::fflush(stdout);
    const std::string printed = ::testing::internal::GetCapturedStdout();
    EXPECT_TRUE(status.ok()) << status;
    return printed;
  }
  static std::string Refusal(const std::vector<std::string>& words) {
    const absl::Status status = Call(words);
    EXPECT_FALSE(status.ok());
    return std::string(status.message());
  }
  // Of a file in the test's folder.
  std::string Text(const std::string& name) const {
    std::stringstream text;
    text << std::ifstream(folder_ + "/" + name).rdbuf();
    return text.str();
  }

  std::string folder_;
};

}  // namespace sluice
