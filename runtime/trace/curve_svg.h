// Lines and labelled points over two axes, as a picture: a bubble against a memory cap, say. The SVG needs nothing from
// outside and has its own background, so that it reads well on light and dark pages.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sluice {

struct CurvePoint {
  double x = 0, y = 0;
};

enum class CurveStyle : uint8_t { kSteps, kDashedSteps };  // from a point on, its y holds until the next one

struct CurveLine {
  std::string name;  // in the legend
  CurveStyle style = CurveStyle::kSteps;
  std::vector<CurvePoint> points;  // ascending in x
};

struct CurveMark {
  std::string name;  // beside the mark
  CurvePoint point;
};

struct CurvePicture {
  std::string title, caption;
  std::string x_name, y_name;
  double y_max = 0;  // what lies above is left out and counted below the picture; 0: as the points need
  std::vector<CurveLine> lines;
  std::vector<CurveMark> marks;
};

// REQUIRES: at least one line with one point; all numbers finite and none negative.
std::string DrawCurves(const CurvePicture& picture);

}  // namespace sluice
