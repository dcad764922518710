// Applies the tables of arrows.h to sources. Each function returns one line per violation, `file:line: what is wrong`,
// in the order of the files, and nothing where all is well.
#pragma once

#include <string>
#include <vector>

#include "tests/layering/sources.h"

namespace sluice::layering {

using Violations = std::vector<std::string>;

// Files that lie in no folder of the table.
Violations FilesWithoutRoom(const Sources& sources);

// Includes against the arrows, and project headers included by a path that doesn't start at the root.
Violations IncludesAgainstArrows(const Sources& sources);

// Labels in BUILD files against the arrows.
Violations LabelsAgainstArrows(const Sources& sources);

// Libraries seen (by include or by //tools/bazel/deps label) outside their places.
Violations LibrariesOutOfPlace(const Sources& sources);

// Headers that break a folder's promise of purity.
Violations ImpureIncludes(const Sources& sources);

// Libraries reached through a chain of includes from where they must not be; names the chain.
Violations LibrariesReached(const Sources& sources);

// Circles of includes, each named once from its alphabetically first file.
Violations IncludeCircles(const Sources& sources);

// Reads of the environment below tools/: configuration goes down by constructor argument.
Violations EnvironmentReads(const Sources& sources);

}  // namespace sluice::layering
