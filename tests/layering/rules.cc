#include "tests/layering/rules.h"

#include <algorithm>
#include <map>
#include <set>
#include <string_view>

#include "tests/layering/arrows.h"

namespace sluice::layering {
namespace {

using Names = std::vector<std::string_view>;

std::string At(const std::string& file, int line) { return file + ":" + std::to_string(line) + ": "; }

// Is the file at `path` among those that `pattern` means? For the forms see Arrow.
bool Matches(std::string_view pattern, const std::string& path) {
  const size_t star = pattern.find('*');
  if (star != std::string_view::npos) {
    if (!path.starts_with(pattern.substr(0, star))) return false;
    const std::string_view ending = pattern.substr(star + 1);
    if (ending.empty()) return FolderOf(path) == pattern.substr(0, star);
    return StemOf(path).ends_with(ending);
  }
  if (pattern.ends_with('/')) return path.starts_with(pattern);
  return StemOf(path) == pattern;
}

// As Matches, but a place without a star is only how the path begins (Library::seen_by).
bool Below(const Names& places, const std::string& path) {
  return std::any_of(places.begin(), places.end(), [&](std::string_view place) {
    return Matches(place, path) || (place.find('*') == std::string_view::npos && path.starts_with(place));
  });
}

bool MatchesAny(const Names& patterns, const std::string& path) {
  return std::any_of(patterns.begin(), patterns.end(), [&](std::string_view p) { return Matches(p, path); });
}

bool BeginsWithAny(const Names& beginnings, const std::string& name) {
  return std::any_of(beginnings.begin(), beginnings.end(), [&](std::string_view b) { return name.starts_with(b); });
}

// Standard headers have no extension and must match whole: `thread` is not `thread_pool.h`.
bool IsHeaderOf(const Names& headers, const std::string& name) {
  return std::any_of(headers.begin(), headers.end(), [&](std::string_view header) {
    return header.ends_with('/') ? name.starts_with(header) : name == header;
  });
}

bool IsTest(const std::string& path) { return path.starts_with("tests/"); }

// The row for `path`: the longest `from` that matches, or null.
const Arrow* ArrowOf(const std::string& path) {
  const Arrow* best = nullptr;
  for (const Arrow& arrow : Arrows()) {
    if (Matches(arrow.from, path) && (best == nullptr || arrow.from.size() > best->from.size())) best = &arrow;
  }
  return best;
}

// Does the first folder of `path` belong to the house?
bool IsInHouse(const std::string& path) {
  const std::string room = path.substr(0, path.find('/') + 1);
  return !room.empty() &&
         std::any_of(Arrows().begin(), Arrows().end(), [&](const Arrow& arrow) { return arrow.from == room; });
}

std::string Joined(const Names& names) {
  std::string joined;
  for (std::string_view name : names) joined += (joined.empty() ? "" : ", ") + std::string(name);
  return joined.empty() ? "nothing" : joined;
}

std::string ArrowViolation(const Arrow& arrow, const std::string& file, const Reference& reference) {
  return At(file, reference.line) + std::string(arrow.from) + " may not see " + reference.target + " (only " +
         Joined(arrow.to) + ")";
}

// The headers of the project that `path` includes.
std::vector<std::string> ProjectIncludes(const Sources& sources, const std::string& path) {
  std::vector<std::string> included;
  for (const Reference& include : Includes(sources.at(path))) {
    if (sources.contains(include.target)) included.push_back(include.target);
  }
  return included;
}

const Library* LibraryNamed(std::string_view name) {
  for (const Library& library : Libraries()) {
    if (library.name == name) return &library;
  }
  return nullptr;
}

// Breadth-first over project headers: each header reachable from `start` -> the file that includes it.
std::map<std::string, std::string> ReachedFrom(const Sources& sources, const std::string& start) {
  std::map<std::string, std::string> includer = {{start, ""}};
  std::vector<std::string> queue = {start};
  for (size_t i = 0; i < queue.size(); ++i) {
    const std::string path = queue[i];
    for (const std::string& header : ProjectIncludes(sources, path)) {
      if (includer.emplace(header, path).second) queue.push_back(header);
    }
  }
  return includer;
}

std::string ChainTo(const std::map<std::string, std::string>& includer, const std::string& end) {
  std::string chain = end;
  for (std::string path = includer.at(end); !path.empty(); path = includer.at(path)) chain = path + " -> " + chain;
  return chain;
}

// Depth-first search for circles; `path` is the chain from the start to the file in hand.
struct CircleSearch {
  const Sources& sources;
  std::set<std::string> finished = {};
  std::vector<std::string> path = {};
  Violations found = {};

  void Visit(const std::string& file) {
    const auto on_path = std::find(path.begin(), path.end(), file);
    if (on_path != path.end()) {
      std::string circle;
      for (auto it = on_path; it != path.end(); ++it) circle += *it + " -> ";
      found.push_back("circle of includes: " + circle + file);
      return;
    }
    if (finished.contains(file)) return;
    path.push_back(file);
    for (const std::string& header : ProjectIncludes(sources, file)) Visit(header);
    path.pop_back();
    finished.insert(file);
  }
};

}  // namespace

Violations FilesWithoutRoom(const Sources& sources) {
  Violations violations;
  for (const auto& [path, text] : sources) {
    if (!IsBuildFile(path) && ArrowOf(path) == nullptr) violations.push_back(path + ": lies in no room of the house");
  }
  return violations;
}

Violations IncludesAgainstArrows(const Sources& sources) {
  Violations violations;
  for (const auto& [path, text] : sources) {
    const Arrow* arrow = ArrowOf(path);
    if (arrow == nullptr || IsBuildFile(path)) continue;
    for (const Reference& include : Includes(text)) {
      if (!path.starts_with("tests/gpu_sim/include/") && sources.contains(FolderOf(path) + include.target) &&
          !sources.contains(include.target)) {
        violations.push_back(At(path, include.line) + "include " + include.target + " by its path from the root");
      }
      if (!IsInHouse(include.target)) continue;
      if (!MatchesAny(arrow->to, include.target)) violations.push_back(ArrowViolation(*arrow, path, include));
      // The simulated CUDA toolkit takes the real one's place by a build setting; tests hold its machine in hand,
      // nobody its headers.
      if (include.target.starts_with("tests/gpu_sim/include/") && !path.starts_with("tests/gpu_sim/")) {
        violations.push_back(At(path, include.line) + "nothing includes tests/gpu_sim by path");
      }
    }
  }
  return violations;
}

Violations LabelsAgainstArrows(const Sources& sources) {
  Violations violations;
  for (const auto& [path, text] : sources) {
    const Arrow* arrow = ArrowOf(path);
    if (arrow == nullptr || !IsBuildFile(path)) continue;
    for (const Reference& label : Labels(text)) {
      if (!IsInHouse(label.target) || label.target.starts_with("tools/bazel/")) continue;
      // A BUILD file of stages/ also holds the targets of its *_io files.
      const bool for_io =
          path.starts_with("stages/") && !path.starts_with("stages/partition/") && label.target.starts_with("proto/");
      if (!for_io && !MatchesAny(arrow->to, label.target)) violations.push_back(ArrowViolation(*arrow, path, label));
    }
  }
  return violations;
}

Violations LibrariesOutOfPlace(const Sources& sources) {
  Violations violations;
  const std::string deps = "tools/bazel/deps/";
  for (const auto& [path, text] : sources) {
    if (IsTest(path) || path.starts_with("tools/bazel/")) continue;
    for (const Library& library : Libraries()) {
      if (Below(library.seen_by, path)) continue;
      const bool for_io = IsBuildFile(path) && path.starts_with("stages/") && library.name == "protobuf";
      for (const Reference& reference : IsBuildFile(path) ? Labels(text) : Includes(text)) {
        const bool seen = IsBuildFile(path) ? !for_io && reference.target == deps + std::string(library.name)
                                            : BeginsWithAny(library.includes, reference.target);
        if (!seen) continue;
        violations.push_back(At(path, reference.line) + std::string(library.name) + " may be seen only by " +
                             Joined(library.seen_by));
      }
    }
  }
  return violations;
}

Violations ImpureIncludes(const Sources& sources) {
  Violations violations;
  for (const auto& [path, text] : sources) {
    if (IsBuildFile(path)) continue;
    for (const Purity& purity : Purities()) {
      if (!path.starts_with(purity.folder) || Below(purity.except, path)) continue;
      for (const Reference& include : Includes(text)) {
        if (!IsHeaderOf(purity.headers, include.target)) continue;
        violations.push_back(At(path, include.line) + "<" + include.target + "> in " + std::string(purity.folder) +
                             ": " + std::string(purity.promise));
      }
    }
  }
  return violations;
}

Violations LibrariesReached(const Sources& sources) {
  Violations violations;
  for (const auto& [path, text] : sources) {
    if (IsBuildFile(path)) continue;
    for (const Unreachable& rule : Unreachables()) {
      if (!path.starts_with(rule.folder)) continue;
      const std::map<std::string, std::string> includer = ReachedFrom(sources, path);
      for (const auto& [header, from] : includer) {
        for (const Reference& include : Includes(sources.at(header))) {
          for (std::string_view name : rule.libraries) {
            if (!BeginsWithAny(LibraryNamed(name)->includes, include.target)) continue;
            violations.push_back(path + ": must not reach " + std::string(name) + ": " + ChainTo(includer, header) +
                                 " -> " + include.target);
          }
        }
      }
    }
  }
  return violations;
}

Violations IncludeCircles(const Sources& sources) {
  CircleSearch search{.sources = sources};
  for (const auto& [path, text] : sources) {
    if (!IsBuildFile(path)) search.Visit(path);
  }
  return search.found;
}

Violations EnvironmentReads(const Sources& sources) {
  Violations violations;
  for (const auto& [path, text] : sources) {
    if (IsBuildFile(path) || IsTest(path) || path.starts_with("tools/")) continue;
    for (const Reference& line : LinesWith(text, "getenv(")) {
      violations.push_back(At(path, line.line) + "reads the environment below tools/");
    }
  }
  return violations;
}

}  // namespace sluice::layering
