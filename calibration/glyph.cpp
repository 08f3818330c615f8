// glyph.py in C++: the same steps in the same order, with Pillow's own arithmetic. tests/calibration/test_glyph_ports.py
// compares their pixels. It is a part of the programs that `glyphpress snippet` prints.

constexpr int SIDE = 28, PADDING = 2, INNER = SIDE - 2 * PADDING, WORK = 2 * INNER;
constexpr int LARGEST = 512, FAINTEST = 24, FRAME = 16, BORDER = 3;
constexpr double DUST = 0.01, EDGE_LOW = 0.35, EDGE_HIGH = 0.9;

// There is no ink in the picture.
struct Blank : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Picture {
  int width, height;
  std::vector<uint8_t> pixels;  // in rows

  Picture(int wide, int high, uint8_t level = 0) : width(wide), height(high), pixels(size_t(wide) * high, level) {}
  uint8_t& at(int x, int y) { return pixels[size_t(y) * width + x]; }
  uint8_t at(int x, int y) const { return pixels[size_t(y) * width + x]; }
};

// At most 512 pixels per side: each pixel is the mean of a square.
Picture shrunk(const Picture& drawing) {
  int step = (std::max(drawing.width, drawing.height) + LARGEST - 1) / LARGEST;
  if (step <= 1) return drawing;
  Picture small((drawing.width + step - 1) / step, (drawing.height + step - 1) / step);
  for (int y = 0; y < small.height; y++) {
    for (int x = 0; x < small.width; x++) {
      int right = std::min((x + 1) * step, drawing.width), bottom = std::min((y + 1) * step, drawing.height);
      int64_t sum = 0, count = int64_t(right - x * step) * (bottom - y * step);
      for (int v = y * step; v < bottom; v++) for (int u = x * step; u < right; u++) sum += drawing.at(u, v);
      small.at(x, y) = uint8_t((sum + count / 2) / count);
    }
  }
  return small;
}

// threshold: the first light level by Otsu's method; dark, light: median of the dark, upper quartile of the light ones.
struct Levels {
  int threshold, dark, light;
};

Levels levels(const std::vector<uint8_t>& pixels) {
  std::array<double, 256> below{}, mass{};
  for (uint8_t level : pixels) below[level] += 1;
  int last = 255, first = 0;
  while (last > 0 && below[last] == 0) last--;
  for (int level = 0; level < 256; level++) {
    mass[level] = below[level] * level + (level ? mass[level - 1] : 0);
    below[level] += level ? below[level - 1] : 0;
  }
  double total = below[255], best = -1;
  while (first < 256 && below[first] == 0) first++;
  if (first > 255 || below[first] == total || last - first < FAINTEST) throw Blank("there is no ink in it");
  int dark = first;
  for (int level = first; level < 256 && below[level] < total; level++) {
    double distance = mass[255] / total * below[level] - mass[level];
    double between = distance * distance / (below[level] * (total - below[level]));
    if (between > best) best = between, dark = level;
  }
  auto reaches = [&](double count) { return int(std::lower_bound(below.begin(), below.end(), count) - below.begin()); };
  return {dark + 1, reaches(below[dark] / 2), reaches(total - (total - below[dark]) / 4)};
}

// Paper is the majority of the frame, or of the drawing if that is close. Throws Blank.
Picture brightOnDark(Picture drawing) {
  int threshold = levels(drawing.pixels).threshold, width = drawing.width, height = drawing.height;
  double framed = 0, all = 0;
  for (int y = 0; y < height; y++) {
    for (int x = 0; x < width; x++) {
      if (drawing.at(x, y) < threshold) continue;
      all++;
      framed += (y == 0) + (y == height - 1) + (x == 0) + (x == width - 1);
    }
  }
  double share = framed / (2.0 * (width + height));
  if ((std::abs(share - 0.5) > 0.1 ? share : all / (double(width) * height)) > 0.5) {
    for (uint8_t& level : drawing.pixels) level = 255 - level;
  }
  return drawing;
}

bool isGlyph(const Picture& bright) {
  if (bright.width != SIDE || bright.height != SIDE) return false;
  if (*std::max_element(bright.pixels.begin(), bright.pixels.end()) < 250) return false;
  for (int k = 0; k < SIDE; k++) {
    if (std::max({bright.at(k, 0), bright.at(k, SIDE - 1), bright.at(0, k), bright.at(SIDE - 1, k)}) > FRAME) return false;
  }
  return true;
}

struct Box {
  int top, bottom, left, right;  // bottom and right exclusive
};

Box boxOf(const Picture& bright, int least) {
  Box box{bright.height, 0, bright.width, 0};
  for (int y = 0; y < bright.height; y++) {
    for (int x = 0; x < bright.width; x++) {
      if (bright.at(x, y) < least) continue;
      box = {std::min(box.top, y), y + 1, std::min(box.left, x), std::max(box.right, x + 1)};
    }
  }
  if (!box.bottom) throw Blank("there are only specks or hairlines in it");
  return box;
}

// A picture of 1 where there is ink, without specks, which would otherwise extend the crop.
Picture withoutDust(const Picture& bright, int threshold) {
  int width = bright.width, height = bright.height;
  Picture mask(width, height);
  for (size_t k = 0; k < mask.pixels.size(); k++) mask.pixels[k] = bright.pixels[k] >= threshold;
  std::vector<int> parts(mask.pixels.size()), areas(1), open;
  for (size_t seed = 0; seed < parts.size(); seed++) {
    if (!mask.pixels[seed] || parts[seed]) continue;
    int number = int(areas.size());
    areas.push_back(0);
    open.assign(1, int(seed));
    parts[seed] = number;
    while (!open.empty()) {
      int x = open.back() % width, y = open.back() / width;
      open.pop_back();
      areas[number]++;
      for (int v = std::max(y - 1, 0); v <= std::min(y + 1, height - 1); v++) {
        for (int u = std::max(x - 1, 0); u <= std::min(x + 1, width - 1); u++) {
          int near = v * width + u;
          if (!mask.pixels[near] || parts[near]) continue;
          parts[near] = number;
          open.push_back(near);
        }
      }
    }
  }
  double ink = 0;
  for (int area : areas) ink += area;
  if (ink * DUST < 1 || areas.size() < 3) return mask;
  for (size_t k = 0; k < parts.size(); k++) mask.pixels[k] = mask.pixels[k] && areas[parts[k]] >= DUST * ink;
  return mask;
}

// The part from (x, y), `outside` where the picture has ended.
Picture cropped(const Picture& drawing, int x, int y, int wide, int high, uint8_t outside = 0) {
  Picture part(wide, high, outside);
  for (int v = std::max(y, 0); v < std::min(y + high, drawing.height); v++) {
    for (int u = std::max(x, 0); u < std::min(x + wide, drawing.width); u++) part.at(u - x, v - y) = drawing.at(u, v);
  }
  return part;
}

Picture transposed(const Picture& drawing) {
  Picture turned(drawing.height, drawing.width);
  for (int y = 0; y < drawing.height; y++) {
    for (int x = 0; x < drawing.width; x++) turned.at(y, x) = drawing.at(x, y);
  }
  return turned;
}

// Bicubic convolution with a = -0.5 (Keys 1981).
double cubic(double distance) {
  double x = std::abs(distance);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
}

Picture resizedAcross(const Picture& drawing, int wide, float start, float end) {
  Picture small(wide, drawing.height);
  double scale = double(end - start) / wide, stretch = std::max(scale, 1.0);
  for (int x = 0; x < wide; x++) {
    double centre = start + (x + 0.5) * scale, sum = 0;
    int first = std::max(int(centre - 2 * stretch + 0.5), 0);
    int last = std::min(int(centre + 2 * stretch + 0.5), drawing.width);
    std::vector<double> shares;
    for (int near = first; near < last; near++) shares.push_back(cubic((near - centre + 0.5) / stretch));
    for (double share : shares) sum += share;
    std::vector<int64_t> weights;  // of 22 bits
    for (double share : shares) weights.push_back(int64_t(share / sum * (1 << 22) + (share / sum < 0 ? -0.5 : 0.5)));
    for (int y = 0; y < drawing.height; y++) {
      int64_t total = 1 << 21;
      for (int near = first; near < last; near++) total += drawing.at(near, y) * weights[near - first];
      small.at(x, y) = uint8_t(std::clamp<int64_t>(total >> 22, 0, 255));
    }
  }
  return small;
}

// Pillow's bicubic resize of a box. Since version 13 it goes down first where more than twice as many rows as columns are
// lost, else across.
Picture resized(const Picture& drawing, int wide, int high, double left, double top, double right, double bottom) {
  auto down = [&](const Picture& each) {
    return transposed(resizedAcross(transposed(each), high, float(top), float(bottom)));
  };
  auto across = [&](const Picture& each) { return resizedAcross(each, wide, float(left), float(right)); };
  int lost = drawing.height - high;
  return lost > 0 && lost > 2 * (drawing.width - wide) ? across(down(drawing)) : down(across(drawing));
}

// Crop to the ink, bring it to the working size, and stretch paper to 0 and ink to 255.
Picture inkOf(const Picture& bright) {
  Levels gray = levels(bright.pixels);
  Box box = boxOf(withoutDust(bright, gray.threshold), 1);
  double scale = double(WORK) / std::max(box.bottom - box.top, box.right - box.left);
  // A pixel of paper on each side lets the interpolation end the strokes.
  int width = box.right - box.left + 2, height = box.bottom - box.top + 2;
  Picture cut = cropped(bright, box.left - 1, box.top - 1, width, height, uint8_t(gray.dark));
  int wide = std::max(1, int(std::nearbyint(width * scale))), high = std::max(1, int(std::nearbyint(height * scale)));
  Picture large = resized(cut, wide, high, 0, 0, width, height);
  double low = gray.dark + EDGE_LOW * (gray.light - gray.dark), top = gray.dark + EDGE_HIGH * (gray.light - gray.dark);
  for (uint8_t& level : large.pixels) level = uint8_t(std::clamp((level - low) * (255 / (top - low)), 0.0, 255.0));
  return cropped(large, -BORDER, -BORDER, wide + 2 * BORDER, high + 2 * BORDER);
}

// Pillow's Gaussian blur of one pixel: three box blurs with a fractional radius (Gwosdek et al. 2011), borders repeated.
Picture boxBlurred(const Picture& drawing) {
  // The radius is below 1, so that a box is the pixel and a share of its two neighbours. Pillow divides in float32.
  const double variance = 1.0 / 3, whole = std::floor((std::sqrt(12 * variance + 1) - 1) / 2);
  const double share = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance);
  const float radius = float(whole + share / (6 * (variance - (whole + 1) * (whole + 1))));
  const int64_t unit = 1 << 24, inner = int64_t(float(unit) / (radius * 2 + 1)), outer = (unit - inner) / 2;
  Picture soft(drawing.width, drawing.height);
  for (int y = 0; y < drawing.height; y++) {
    for (int x = 0; x < drawing.width; x++) {
      int sides = drawing.at(std::max(x - 1, 0), y) + drawing.at(std::min(x + 1, drawing.width - 1), y);
      soft.at(x, y) = uint8_t((drawing.at(x, y) * inner + sides * outer + unit / 2) / unit);
    }
  }
  return soft;
}

// Blur, then scale the square around the visible ink to 28x28.
Picture settled(Picture soft) {
  for (int turn = 0; turn < 2; turn++) {
    for (int pass = 0; pass < 3; pass++) soft = boxBlurred(soft);
    soft = transposed(soft);
  }
  Box box = boxOf(soft, FAINTEST + 1);
  double side = double(std::max(box.bottom - box.top, box.right - box.left)) * SIDE / INNER;
  double x = (box.left + box.right - side) / 2, y = (box.top + box.bottom - side) / 2;
  int left = int(std::floor(x)), top = int(std::floor(y)), room = int(std::ceil(side)) + 1;
  Picture square = cropped(soft, left, top, room, room);
  Picture small = resized(square, SIDE, SIDE, x - left, y - top, x - left + side, y - top + side);
  float factor = 255.0f / *std::max_element(small.pixels.begin(), small.pixels.end());
  for (uint8_t& level : small.pixels) level = uint8_t(std::nearbyint(level * factor));
  return small;
}

// The 28x28 glyph, bright ink on black, of a drawing of any size, dark on light or the reverse. Throws Blank.
Picture glyph(const Picture& drawing) {
  Picture bright = brightOnDark(shrunk(drawing));
  return isGlyph(bright) ? bright : settled(inkOf(bright));
}
