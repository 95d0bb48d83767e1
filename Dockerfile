# The image of launch/tpu/gke.sh. It has no keys and no data: those are given to the pods.
#
#   gcloud builds submit --project=P --tag=us-docker.pkg.dev/P/bridge/bridge-jax:1 .
FROM python:3.11-slim

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1

# The number of the user is that of the files on a share, which hosts of TPU VMs write as well.
RUN useradd --uid=20000 --create-home bridge
WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY bridge_jax bridge_jax
COPY launch launch
COPY configs configs
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --editable '.[tpu,openai,gemini,datasets,gguf]' \
    && cd /app && /opt/venv/bin/python -c 'import jax, launch.run'
ENV PATH=/opt/venv/bin:$PATH
USER 20000
CMD ["python", "-m", "launch.run", "--help"]
