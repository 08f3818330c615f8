# Two images: the gate (the core alone: judges, evaluates, compares, profiles .onnx) and the press (with torch and the
# converters). A container runs as user 1000 in /data:
#
#   docker build -t glyphpress:gate .
#   docker run --rm -v "$PWD:/data" glyphpress:gate gate --baseline float.onnx --candidate int8.onnx --data images:balanced
#   docker build --target press -t glyphpress:press .
#
# EMNIST's files are kept between runs by a volume for the cache: -v glyphpress-cache:/home/glyphpress/.cache
FROM python:3.12.14-slim-bookworm@sha256:782412e85d0f0984994c290652577d4018aff08145c85b262bb63dc0c7522254 AS python

FROM python AS sources
WORKDIR /src
COPY pyproject.toml README.md LICENSE requirements.lock ./
COPY calibration ./calibration
COPY glyphpress ./glyphpress
COPY targets ./targets
COPY toolchain ./toolchain
# Versions are those that the test suite ran with.
RUN python -m venv /opt/glyphpress \
  && /opt/glyphpress/bin/pip install --no-cache-dir --constraint requirements.lock .

FROM sources AS press-sources
# An index of CPU builds saves several GB of CUDA: --build-arg PIP_EXTRA_INDEX_URL=https://...
ARG PIP_EXTRA_INDEX_URL=
RUN /opt/glyphpress/bin/pip install --no-cache-dir --constraint requirements.lock '.[press]'

FROM python AS base
# The home folder of a volume that is mounted on the cache belongs to the user, too.
RUN useradd --uid 1000 --create-home glyphpress \
  && install -d -o glyphpress -g glyphpress /data /home/glyphpress/.cache
ENV PATH=/opt/glyphpress/bin:$PATH
WORKDIR /data
USER 1000:1000
ENTRYPOINT ["glyphpress"]
CMD ["--help"]

FROM base AS press
COPY --from=press-sources /opt/glyphpress /opt/glyphpress

# The last one is what `docker build` makes without --target.
FROM base AS gate
COPY --from=sources /opt/glyphpress /opt/glyphpress
