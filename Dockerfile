# A CPU image. Build: docker build -t unperturbed .
# Run:   docker run --rm -v "$PWD:/data" unperturbed demo
FROM python:3.12-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE MANIFEST.in ./
COPY src src
RUN pip install --no-cache-dir build && python -m build --wheel

FROM python:3.12-slim
# TORCH_INDEX: an index with CPU builds of torch; without it, pip takes the default build, which has CUDA's libraries.
ARG TORCH_INDEX=""
COPY constraints.txt /wheel/
COPY --from=build /source/dist/*.whl /wheel/
RUN pip install --no-cache-dir --constraint /wheel/constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} torch \
    && pip install --no-cache-dir --constraint /wheel/constraints.txt /wheel/*.whl \
    && rm -r /wheel \
    && useradd --create-home user
USER user
WORKDIR /data
ENTRYPOINT ["unperturbed"]
CMD ["--help"]
