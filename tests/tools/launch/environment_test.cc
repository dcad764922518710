// What a process makes of the environments that launchers give.
#include "tools/launch/environment.h"

#include <map>
#include <numeric>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tools/launch/processors.h"
#include "tools/launch/slurm_lists.h"

namespace sluice::tools {
namespace {

using ::testing::AllOf;
using ::testing::Gt;
using ::testing::HasSubstr;
using ::testing::Lt;

using Variables = std::map<std::string, std::string>;

absl::StatusOr<std::optional<ProcessPlace>> Read(const Variables& variables) {
  return PlaceFromEnvironment([&](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

ProcessPlace Place(const Variables& variables) {
  const auto place = Read(variables);
  EXPECT_TRUE(place.ok() && place->has_value()) << place.status();
  return place.ok() && place->has_value() ? **place : ProcessPlace();
}

std::string Refusal(const Variables& variables) {
  const auto place = Read(variables);
  EXPECT_EQ(place.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(place.status().message());
}

Variables With(Variables variables, const Variables& others) {
  for (const auto& [name, value] : others) variables[name] = value;
  return variables;
}

const Variables kTorchrun = {{"RANK", "3"},
                             {"WORLD_SIZE", "4"},
                             {"LOCAL_RANK", "1"},
                             {"LOCAL_WORLD_SIZE", "2"},
                             {"MASTER_ADDR", "a1"},
                             {"MASTER_PORT", "29500"},
                             {"TORCHELASTIC_RUN_ID", "none"}};
const Variables kSlurm = {{"SLURM_PROCID", "5"},
                          {"SLURM_NTASKS", "7"},
                          {"SLURM_LOCALID", "1"},
                          {"SLURM_NODEID", "2"},
                          {"SLURM_JOB_ID", "4711"},
                          {"SLURM_STEP_ID", "0"},
                          {"SLURM_STEP_NODELIST", "node[03-05,7]"},
                          {"SLURM_STEP_TASKS_PER_NODE", "2(x3),1"},
                          {"SLURM_LAUNCH_NODE_IPADDR", "10.0.0.1"}};
const Variables kOpenMpi = {{"OMPI_COMM_WORLD_RANK", "1"},
                            {"OMPI_COMM_WORLD_SIZE", "2"},
                            {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                            {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"},
                            {"PMIX_NAMESPACE", "1234"}};

TEST(EnvironmentTest, WithoutALauncherThereIsNoPlace) {
  for (const Variables& variables :
       {Variables{}, Variables{{"RANK", ""}}, Variables{{"MASTER_ADDR", "a"}, {"LOCAL_RANK", "0"}}}) {
    const auto place = Read(variables);
    ASSERT_TRUE(place.ok()) << place.status();
    EXPECT_FALSE(place->has_value());
  }
}

TEST(EnvironmentTest, Torchrun) {
  const ProcessPlace place = Place(With(kTorchrun, {{"SLUICE_TOKEN", "secret"}}));
  EXPECT_EQ(place.process, 3);
  EXPECT_EQ(place.processes, 4);
  EXPECT_EQ(place.local_process, 1);
  EXPECT_EQ(place.local_processes, 2);
  EXPECT_EQ(place.host, "a1");
  EXPECT_EQ(place.port, 29500);
  EXPECT_EQ(place.token, "secret");
  EXPECT_EQ(place.launcher, "torchrun");
  EXPECT_EQ(place.port_file, -1);
}

TEST(EnvironmentTest, ThePortOfTorchrunsOwnStoreIsLeftToIt) {
  const Variables store = {{"TORCHELASTIC_USE_AGENT_STORE", "True"}};
  EXPECT_EQ(Place(With(kTorchrun, store)).port, 29501);
  EXPECT_EQ(Place(With(With(kTorchrun, store), {{"MASTER_PORT", "65535"}})).port, 65534);
  EXPECT_EQ(Place(With(kTorchrun, {{"TORCHELASTIC_USE_AGENT_STORE", "False"}})).port, 29500);
}

TEST(EnvironmentTest, SluiceLaunchLetsProcess0ChooseThePort) {
  const Variables first = {
      {"RANK", "0"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "127.0.0.1"}, {"MASTER_PORT", "0"}, {"SLUICE_PORT_FD", "5"}};
  EXPECT_EQ(Place(first).port, 0);
  EXPECT_EQ(Place(first).port_file, 5);
  EXPECT_THAT(Refusal(With(first, {{"RANK", "1"}})), HasSubstr("MASTER_PORT=0"));
  EXPECT_THAT(Refusal(With(first, {{"SLUICE_PORT_FD", ""}})), HasSubstr("MASTER_PORT=0"));
  EXPECT_THAT(Refusal(With(first, {{"SLUICE_PORT_FD", "-2"}})), HasSubstr("SLUICE_PORT_FD=-2"));
}

TEST(EnvironmentTest, OneProcessNeedsNoAddress) { EXPECT_EQ(Place({{"RANK", "0"}, {"WORLD_SIZE", "1"}}).processes, 1); }

TEST(EnvironmentTest, Slurm) {
  const ProcessPlace place = Place(kSlurm);
  EXPECT_EQ(place.process, 5);
  EXPECT_EQ(place.processes, 7);
  EXPECT_EQ(place.local_process, 1);
  EXPECT_EQ(place.local_processes, 2);
  EXPECT_EQ(place.host, "node03");
  EXPECT_THAT(place.port, AllOf(Gt(1024), Lt(32768)));
  EXPECT_EQ(place.launcher, "Slurm");
  EXPECT_EQ(Place(With(kSlurm, {{"SLURM_STEP_NODELIST", ""}})).host, "10.0.0.1");
  EXPECT_EQ(Place(With(kSlurm, {{"SLURM_STEP_NODELIST", ""}, {"SLURM_JOB_NODELIST", "b,c"}})).host, "b");
  EXPECT_EQ(Place(With(kSlurm, {{"SLURM_NTASKS", "9"}, {"SLURM_STEP_NUM_TASKS", "7"}})).processes, 7);
}

TEST(EnvironmentTest, ProcessesOfASlurmStepAgreeOnAPortAndOthersSeldomMeetIt) {
  EXPECT_EQ(Place(kSlurm).port, Place(With(kSlurm, {{"SLURM_PROCID", "4"}, {"SLURM_LOCALID", "0"}})).port);
  EXPECT_NE(Place(kSlurm).port, Place(With(kSlurm, {{"SLURM_STEP_ID", "1"}})).port);
  EXPECT_NE(Place(kSlurm).port, Place(With(kSlurm, {{"SLURM_JOB_ID", "4712"}})).port);
}

TEST(EnvironmentTest, ABatchScriptMayNameHostAndPortForSlurmAndOpenMpi) {
  const Variables master = {{"MASTER_ADDR", "a1"}, {"MASTER_PORT", "777"}};
  for (const Variables& launcher : {kSlurm, kOpenMpi}) {
    const ProcessPlace place = Place(With(launcher, master));
    EXPECT_EQ(place.host, "a1");
    EXPECT_EQ(place.port, 777);
    EXPECT_THAT(Refusal(With(launcher, {{"WORLD_SIZE", "8"}})), HasSubstr("WORLD_SIZE=8"));
  }
}

TEST(EnvironmentTest, OpenMpi) {
  const ProcessPlace place = Place(kOpenMpi);
  EXPECT_EQ(place.process, 1);
  EXPECT_EQ(place.processes, 2);
  EXPECT_EQ(place.local_process, 1);
  EXPECT_EQ(place.local_processes, 2);
  EXPECT_EQ(place.host, "127.0.0.1");
  EXPECT_EQ(place.port, Place(With(kOpenMpi, {{"OMPI_COMM_WORLD_RANK", "0"}})).port);
  EXPECT_EQ(place.launcher, "Open MPI");
  EXPECT_THAT(Refusal(With(kOpenMpi, {{"OMPI_COMM_WORLD_SIZE", "4"}})), HasSubstr("mpirun -x MASTER_ADDR=HOST"));
}

TEST(EnvironmentTest, TheInnermostLauncherCounts) {
  EXPECT_EQ(Place(With(kSlurm, kOpenMpi)).launcher, "Open MPI");
  EXPECT_EQ(Place(With(With(kSlurm, kOpenMpi), kTorchrun)).launcher, "torchrun");
}

TEST(EnvironmentTest, WhatIsMissingIsNamed) {
  EXPECT_THAT(Refusal({{"RANK", "0"}}), HasSubstr("not WORLD_SIZE"));
  EXPECT_THAT(Refusal({{"WORLD_SIZE", "2"}}), HasSubstr("not RANK"));
  EXPECT_THAT(Refusal(With(kTorchrun, {{"MASTER_ADDR", ""}})), HasSubstr("not MASTER_ADDR"));
  EXPECT_THAT(Refusal(With(kTorchrun, {{"MASTER_PORT", ""}})), HasSubstr("not MASTER_PORT"));
  EXPECT_THAT(Refusal({{"SLURM_PROCID", "0"}}), HasSubstr("not SLURM_NTASKS"));
  EXPECT_THAT(Refusal({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "2"}}), HasSubstr("SLURM_STEP_NODELIST"));
  EXPECT_THAT(Refusal({{"OMPI_COMM_WORLD_RANK", "0"}}), HasSubstr("not OMPI_COMM_WORLD_SIZE"));
}

TEST(EnvironmentTest, RubbishIsNamed) {
  for (const char* rubbish : {"two", "-1", "1.5", "99999999999999999999", "0x1", "1 2"}) {
    for (const char* name : {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT"}) {
      EXPECT_THAT(Refusal(With(kTorchrun, {{name, rubbish}})), HasSubstr(std::string(name) + "=" + rubbish));
    }
    for (const char* name : {"SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NODEID"}) {
      EXPECT_THAT(Refusal(With(kSlurm, {{name, rubbish}})), HasSubstr(std::string(name) + "=" + rubbish));
    }
  }
  EXPECT_THAT(Refusal(With(kTorchrun, {{"WORLD_SIZE", "0"}})), HasSubstr("WORLD_SIZE=0"));
  EXPECT_THAT(Refusal(With(kTorchrun, {{"MASTER_PORT", "65536"}})), HasSubstr("MASTER_PORT=65536"));
  EXPECT_THAT(Refusal(With(kSlurm, {{"SLURM_STEP_NODELIST", "node[3"}})),
              AllOf(HasSubstr("SLURM_STEP_NODELIST"), HasSubstr("node[3")));
  EXPECT_THAT(Refusal(With(kSlurm, {{"SLURM_STEP_TASKS_PER_NODE", "2(x"}})), HasSubstr("SLURM_STEP_TASKS_PER_NODE"));
}

TEST(EnvironmentTest, ContradictionsAreNamed) {
  EXPECT_THAT(Refusal(With(kTorchrun, {{"RANK", "4"}})), AllOf(HasSubstr("RANK=4"), HasSubstr("WORLD_SIZE=4")));
  EXPECT_THAT(Refusal(With(kTorchrun, {{"LOCAL_RANK", "2"}})),
              AllOf(HasSubstr("LOCAL_RANK=2"), HasSubstr("LOCAL_WORLD_SIZE=2")));
  EXPECT_THAT(Refusal(With(kTorchrun, {{"LOCAL_WORLD_SIZE", "5"}})),
              AllOf(HasSubstr("LOCAL_WORLD_SIZE=5"), HasSubstr("WORLD_SIZE=4")));
  EXPECT_THAT(Refusal(With(kSlurm, {{"SLURM_LOCALID", "2"}})),
              AllOf(HasSubstr("SLURM_LOCALID=2"), HasSubstr("SLURM_STEP_TASKS_PER_NODE=2")));
  EXPECT_THAT(Refusal(With(kSlurm, {{"SLURM_NODEID", "4"}})), HasSubstr("has no node 4"));
}

TEST(EnvironmentTest, NoErrorTellsTheToken) {
  EXPECT_THAT(Refusal({{"RANK", "9"}, {"WORLD_SIZE", "2"}, {"SLUICE_TOKEN", "secret"}}), Not(HasSubstr("secret")));
}

TEST(SlurmListsTest, TheFirstOfANodeList) {
  for (const auto& [list, first] : {std::pair("node1", "node1"),
                                    {"node[03-05,7]", "node03"},
                                    {"n7,n[1-2]", "n7"},
                                    {"gnode[10,20]", "gnode10"},
                                    {"a[1-2]b[4,6]", "a1b4"},
                                    {"rack[2]-n[001-128],login", "rack2-n001"},
                                    {"10.0.0.1,10.0.0.2", "10.0.0.1"}}) {
    const auto found = FirstOfNodeList(list);
    ASSERT_TRUE(found.ok()) << found.status();
    EXPECT_EQ(*found, first);
  }
  for (const char* list : {"", ",a", "node[", "node[]", "node[3", "node3]", "node[a-b]", "node[-3]", "n[1-2]]"}) {
    EXPECT_FALSE(FirstOfNodeList(list).ok()) << list;
  }
}

TEST(SlurmListsTest, CountsByNode) {
  const int wanted[] = {4, 4, 3, 1};
  for (int node = 0; node < 4; ++node) EXPECT_EQ(CountOfNode("4(x2),3,1", node).value_or(-1), wanted[node]);
  EXPECT_FALSE(CountOfNode("4(x2),3,1", 4).ok());
  for (const char* counts : {"", "x", "4(x", "4(x2", "4(x0)", "0", "4,", "4(2)", "-1"})
    EXPECT_FALSE(CountOfNode(counts, 1).ok()) << counts;
  EXPECT_EQ(CountOfNode("1(x2147483647),2(x2147483647)", 2147483647).value_or(-1), 2);
}

TEST(ProcessorsTest, SharesAreEvenAndEveryProcessorIsInOne) {
  for (int size = 1; size <= 20; ++size) {
    std::vector<int> processors(size);
    std::iota(processors.begin(), processors.end(), 3);
    for (int places = 1; places <= size; ++places) {
      std::vector<int> all;
      for (int place = 0; place < places; ++place) {
        const std::vector<int> share = ShareOfProcessors(processors, place, places);
        EXPECT_GE(static_cast<int>(share.size()), size / places);
        EXPECT_LE(static_cast<int>(share.size()), (size + places - 1) / places);
        all.insert(all.end(), share.begin(), share.end());
      }
      EXPECT_EQ(all, processors);
    }
  }
  EXPECT_EQ(ShareOfProcessors({4, 5}, 4, 5), std::vector<int>{4});
}

TEST(ProcessorsTest, WhatALauncherHasGivenIsNotSharedAgain) {
  const std::vector<int> half = {2, 3};
  EXPECT_EQ(ProcessorsOf(Place(kOpenMpi), half, 4), half);
  EXPECT_EQ(ProcessorsOf(Place(kSlurm), half, 4), half);
  EXPECT_EQ(ProcessorsOf(Place(kOpenMpi), half, 2), std::vector<int>{3});
  EXPECT_EQ(ProcessorsOf(Place(kTorchrun), half, 4), std::vector<int>{3});
}

}  // namespace
}  // namespace sluice::tools
