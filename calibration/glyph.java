// glyph.py in Java: the same steps in the same order, with Pillow's own arithmetic. tests/calibration/test_glyph_ports.py
// compares their pixels. It is a part of the programs that `glyphpress snippet` prints.

/** A picture in gray levels from 0 to 255, in rows. */
final class Picture {
  final int width, height;
  final int[] pixels;

  Picture(int width, int height) {
    this.width = width;
    this.height = height;
    pixels = new int[width * height];
  }

  int at(int x, int y) {
    return pixels[y * width + x];
  }

  void set(int x, int y, int level) {
    pixels[y * width + x] = level;
  }
}

final class Glyph {
  static final int SIDE = 28;
  private static final int PADDING = 2, INNER = SIDE - 2 * PADDING, WORK = 2 * INNER;
  private static final int LARGEST = 512, FAINTEST = 24, FRAME = 16, BORDER = 3;
  private static final double DUST = 0.01, EDGE_LOW = 0.35, EDGE_HIGH = 0.9;

  /** There is no ink in the picture. */
  static final class Blank extends RuntimeException {
    Blank(String message) {
      super(message);
    }
  }

  private Glyph() {}

  /** The 28x28 glyph, bright ink on black, of a drawing of any size, dark on light or the reverse. Throws Blank. */
  static Picture of(Picture drawing) {
    Picture bright = brightOnDark(shrunk(drawing));
    return isGlyph(bright) ? bright : settled(inkOf(bright));
  }

  // At most 512 pixels per side: each pixel is the mean of a square.
  private static Picture shrunk(Picture drawing) {
    int step = (Math.max(drawing.width, drawing.height) + LARGEST - 1) / LARGEST;
    if (step <= 1) return drawing;
    Picture small = new Picture((drawing.width + step - 1) / step, (drawing.height + step - 1) / step);
    for (int y = 0; y < small.height; y++) {
      for (int x = 0; x < small.width; x++) {
        int right = Math.min((x + 1) * step, drawing.width), bottom = Math.min((y + 1) * step, drawing.height);
        int count = (right - x * step) * (bottom - y * step);
        long sum = count / 2;
        for (int v = y * step; v < bottom; v++) for (int u = x * step; u < right; u++) sum += drawing.at(u, v);
        small.set(x, y, (int) (sum / count));
      }
    }
    return small;
  }

  // { threshold, dark, light }: the first light level by Otsu's method, the median of the dark levels, the upper quartile
  // of the light ones.
  private static int[] levels(Picture drawing) {
    double[] below = new double[256], mass = new double[256];
    for (int level : drawing.pixels) below[level] += 1;
    int last = 255, first = 0;
    while (last > 0 && below[last] == 0) last--;
    for (int level = 0; level < 256; level++) {
      mass[level] = below[level] * level + (level > 0 ? mass[level - 1] : 0);
      below[level] += level > 0 ? below[level - 1] : 0;
    }
    double total = below[255], best = -1;
    while (first < 255 && below[first] == 0) first++;
    if (below[first] == total || last - first < FAINTEST) throw new Blank("there is no ink in it");
    int dark = first;
    for (int level = first; level < 256 && below[level] < total; level++) {
      double distance = mass[255] / total * below[level] - mass[level];
      double between = distance * distance / (below[level] * (total - below[level]));
      if (between > best) {
        best = between;
        dark = level;
      }
    }
    return new int[] {dark + 1, reaching(below, below[dark] / 2), reaching(below, total - (total - below[dark]) / 4)};
  }

  private static int reaching(double[] below, double count) {
    int level = 0;
    while (below[level] < count) level++;
    return level;
  }

  // Paper is the majority of the frame, or of the drawing if that is close. Throws Blank.
  private static Picture brightOnDark(Picture drawing) {
    int threshold = levels(drawing)[0], width = drawing.width, height = drawing.height;
    double framed = 0, all = 0;
    for (int y = 0; y < height; y++) {
      for (int x = 0; x < width; x++) {
        if (drawing.at(x, y) < threshold) continue;
        all++;
        framed += (y == 0 ? 1 : 0) + (y == height - 1 ? 1 : 0) + (x == 0 ? 1 : 0) + (x == width - 1 ? 1 : 0);
      }
    }
    double share = framed / (2.0 * (width + height));
    if ((Math.abs(share - 0.5) > 0.1 ? share : all / drawing.pixels.length) <= 0.5) return drawing;
    Picture bright = new Picture(width, height);
    for (int k = 0; k < bright.pixels.length; k++) bright.pixels[k] = 255 - drawing.pixels[k];
    return bright;
  }

  private static boolean isGlyph(Picture bright) {
    if (bright.width != SIDE || bright.height != SIDE || most(bright) < 250) return false;
    for (int k = 0; k < SIDE; k++) {
      int across = Math.max(bright.at(k, 0), bright.at(k, SIDE - 1));
      if (Math.max(across, Math.max(bright.at(0, k), bright.at(SIDE - 1, k))) > FRAME) return false;
    }
    return true;
  }

  private static int most(Picture drawing) {
    int most = 0;
    for (int level : drawing.pixels) most = Math.max(most, level);
    return most;
  }

  // { top, bottom, left, right } of the pixels from a level on, bottom and right exclusive. Throws Blank.
  private static int[] boxOf(Picture bright, int least) {
    int top = bright.height, bottom = 0, left = bright.width, right = 0;
    for (int y = 0; y < bright.height; y++) {
      for (int x = 0; x < bright.width; x++) {
        if (bright.at(x, y) < least) continue;
        top = Math.min(top, y);
        bottom = y + 1;
        left = Math.min(left, x);
        right = Math.max(right, x + 1);
      }
    }
    if (bottom == 0) throw new Blank("there are only specks or hairlines in it");
    return new int[] {top, bottom, left, right};
  }

  // A picture of 1 where there is ink, without specks, which would otherwise extend the crop.
  private static Picture withoutDust(Picture bright, int threshold) {
    int width = bright.width, height = bright.height, size = width * height, count = 0, ink = 0;
    Picture mask = new Picture(width, height);
    for (int k = 0; k < size; k++) mask.pixels[k] = bright.pixels[k] >= threshold ? 1 : 0;
    int[] parts = new int[size], areas = new int[size + 1], open = new int[size];
    for (int seed = 0; seed < size; seed++) {
      if (mask.pixels[seed] == 0 || parts[seed] > 0) continue;
      int number = ++count, waiting = 0;
      open[waiting++] = seed;
      parts[seed] = number;
      while (waiting > 0) {
        int at = open[--waiting], x = at % width, y = at / width;
        areas[number]++;
        ink++;
        for (int v = Math.max(y - 1, 0); v <= Math.min(y + 1, height - 1); v++) {
          for (int u = Math.max(x - 1, 0); u <= Math.min(x + 1, width - 1); u++) {
            int near = v * width + u;
            if (mask.pixels[near] == 0 || parts[near] > 0) continue;
            parts[near] = number;
            open[waiting++] = near;
          }
        }
      }
    }
    if (ink * DUST < 1 || count < 2) return mask;
    for (int k = 0; k < size; k++) if (areas[parts[k]] < DUST * ink) mask.pixels[k] = 0;
    return mask;
  }

  // The part from (x, y), `outside` where the picture has ended.
  private static Picture cropped(Picture drawing, int x, int y, int wide, int high, int outside) {
    Picture part = new Picture(wide, high);
    java.util.Arrays.fill(part.pixels, outside);
    for (int v = Math.max(y, 0); v < Math.min(y + high, drawing.height); v++) {
      for (int u = Math.max(x, 0); u < Math.min(x + wide, drawing.width); u++) part.set(u - x, v - y, drawing.at(u, v));
    }
    return part;
  }

  private static Picture transposed(Picture drawing) {
    Picture turned = new Picture(drawing.height, drawing.width);
    for (int y = 0; y < drawing.height; y++) {
      for (int x = 0; x < drawing.width; x++) turned.set(y, x, drawing.at(x, y));
    }
    return turned;
  }

  // Bicubic convolution with a = -0.5 (Keys 1981).
  private static double cubic(double distance) {
    double x = Math.abs(distance);
    if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
  }

  private static Picture across(Picture drawing, int wide, float start, float end) {
    Picture small = new Picture(wide, drawing.height);
    double scale = (double) (end - start) / wide, stretch = Math.max(scale, 1);
    for (int x = 0; x < wide; x++) {
      double centre = start + (x + 0.5) * scale, sum = 0;
      int first = Math.max((int) (centre - 2 * stretch + 0.5), 0);
      int last = Math.min((int) (centre + 2 * stretch + 0.5), drawing.width);
      double[] shares = new double[last - first];
      for (int near = first; near < last; near++) sum += shares[near - first] = cubic((near - centre + 0.5) / stretch);
      long[] weights = new long[last - first]; // of 22 bits
      for (int k = 0; k < weights.length; k++) {
        weights[k] = (long) (shares[k] / sum * (1 << 22) + (shares[k] / sum < 0 ? -0.5 : 0.5));
      }
      for (int y = 0; y < drawing.height; y++) {
        long total = 1 << 21;
        for (int near = first; near < last; near++) total += drawing.at(near, y) * weights[near - first];
        small.set(x, y, (int) Math.min(Math.max(total >> 22, 0), 255));
      }
    }
    return small;
  }

  private static Picture down(Picture drawing, int high, float start, float end) {
    return transposed(across(transposed(drawing), high, start, end));
  }

  // Pillow's bicubic resize of a box. Since version 13 it goes down first where more than twice as many rows as columns
  // are lost, else across.
  private static Picture resized(Picture drawing, int wide, int high, double x, double y, double right, double bottom) {
    int lost = drawing.height - high;
    if (lost > 0 && lost > 2 * (drawing.width - wide)) {
      return across(down(drawing, high, (float) y, (float) bottom), wide, (float) x, (float) right);
    }
    return down(across(drawing, wide, (float) x, (float) right), high, (float) y, (float) bottom);
  }

  // Crop to the ink, bring it to the working size, and stretch paper to 0 and ink to 255.
  private static Picture inkOf(Picture bright) {
    int[] gray = levels(bright), box = boxOf(withoutDust(bright, gray[0]), 1);
    int dark = gray[1], light = gray[2], width = box[3] - box[2] + 2, height = box[1] - box[0] + 2;
    double scale = (double) WORK / Math.max(width - 2, height - 2);
    // A pixel of paper on each side lets the interpolation end the strokes.
    Picture cut = cropped(bright, box[2] - 1, box[0] - 1, width, height, dark);
    int wide = Math.max(1, (int) Math.rint(width * scale)), high = Math.max(1, (int) Math.rint(height * scale));
    Picture large = resized(cut, wide, high, 0, 0, width, height);
    double low = dark + EDGE_LOW * (light - dark), top = dark + EDGE_HIGH * (light - dark);
    for (int k = 0; k < large.pixels.length; k++) {
      large.pixels[k] = (int) Math.min(Math.max((large.pixels[k] - low) * (255 / (top - low)), 0), 255);
    }
    return cropped(large, -BORDER, -BORDER, wide + 2 * BORDER, high + 2 * BORDER, 0);
  }

  // Pillow's Gaussian blur of one pixel is three box blurs with a fractional radius (Gwosdek et al. 2011), borders
  // repeated. The radius is below 1, so that a box is the pixel and a share of its two neighbours.
  private static Picture boxBlurred(Picture drawing) {
    double variance = 1.0 / 3, whole = Math.floor((Math.sqrt(12 * variance + 1) - 1) / 2);
    double share = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance);
    float radius = (float) (whole + share / (6 * (variance - (whole + 1) * (whole + 1))));
    long unit = 1 << 24, inner = (long) (unit / (radius * 2 + 1)), outer = (unit - inner) / 2;
    Picture soft = new Picture(drawing.width, drawing.height);
    for (int y = 0; y < drawing.height; y++) {
      for (int x = 0; x < drawing.width; x++) {
        int sides = drawing.at(Math.max(x - 1, 0), y) + drawing.at(Math.min(x + 1, drawing.width - 1), y);
        soft.set(x, y, (int) ((drawing.at(x, y) * inner + sides * outer + unit / 2) / unit));
      }
    }
    return soft;
  }

  // Blur, then scale the square around the visible ink to 28x28.
  private static Picture settled(Picture ink) {
    Picture soft = ink;
    for (int turn = 0; turn < 2; turn++) {
      for (int pass = 0; pass < 3; pass++) soft = boxBlurred(soft);
      soft = transposed(soft);
    }
    int[] box = boxOf(soft, FAINTEST + 1);
    double side = (double) Math.max(box[1] - box[0], box[3] - box[2]) * SIDE / INNER;
    double x = (box[2] + box[3] - side) / 2, y = (box[0] + box[1] - side) / 2;
    int left = (int) Math.floor(x), top = (int) Math.floor(y), room = (int) Math.ceil(side) + 1;
    Picture square = cropped(soft, left, top, room, room, 0);
    Picture small = resized(square, SIDE, SIDE, x - left, y - top, x - left + side, y - top + side);
    float factor = 255.0f / most(small);
    for (int k = 0; k < small.pixels.length; k++) small.pixels[k] = (int) Math.rint(small.pixels[k] * factor);
    return small;
  }
}
