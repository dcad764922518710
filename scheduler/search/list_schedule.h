// Orders by list scheduling: the pipeline is played, and each rank, when free, takes what a rule ranks highest.
#pragma once

#include <cstdint>
#include <vector>

#include "scheduler/search/layout.h"

namespace sluice::search {

struct ListRule {
  // How far rank r runs ahead: forwards wait while it holds ahead_base + ahead_slope (p - 1 - r) micro-batches, counted
  // in forward_bytes of all its stages, the cap apart.
  double ahead_base = 1;
  double ahead_slope = 2;
  bool forward_first = false;  // F before I when both are ready
  bool deep_first = true;      // of several stages with a ready F, the last one
  // A W starts before an F or I that comes within this share of the W's time: 0: only if the W fits, 1: always.
  double weight_overhang = 0.5;
  bool fused = false;  // B in place of I and W where that is cheaper
};

// Empty if the rule runs into a corner: no rank can go on under the cap.
Order ListSchedule(const Layout& layout, const ListRule& rule);

// The rules worth trying, in a fixed order.
std::vector<ListRule> ListRules(const Layout& layout);

}  // namespace sluice::search
