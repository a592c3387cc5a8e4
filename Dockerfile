# Build:  docker build -t qwen-allinone .
#         docker build -t qwen-allinone --build-arg MODEL=Qwen/Qwen1.5-0.5B .    (model baked in)
# Run:    docker run -p 5000:5000 --memory=4g -v qwen-models:/models -v qwen-data:/data qwen-allinone
# Locked: docker run -p 5000:5000 --memory=4g -v qwen-models:/models -v qwen-data:/data --read-only --tmpfs /tmp --cap-drop ALL \
#             --security-opt no-new-privileges --init --stop-timeout 140 qwen-allinone
# Trial:  docker run -p 5000:5000 -e QAIO_MODEL=demo qwen-allinone
FROM python:3.11-slim AS native

COPY native /native
RUN pip install --no-cache-dir --require-hashes -r /native/requirements.txt && python /native/build.py /libqaio.so

FROM python:3.11-slim

# PyTorch's CPU wheels; set it empty to take torch from the default index.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /app

# Dependencies first: this layer is rebuilt only when the pins change.
COPY requirements.txt requirements.lock ./
# All that runs here is known by its hash but for torch: its wheels differ by index and machine.
RUN pip install --require-hashes -r requirements.lock \
    && pip install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -r requirements.txt

COPY app.py gunicorn.conf.py ./
COPY qwen_allinone ./qwen_allinone
COPY --from=native /libqaio.so ./qwen_allinone/model/native/
COPY prompts ./prompts
COPY demo/checkpoint ./demo/checkpoint
COPY demo/MODEL_CARD.md ./demo/
# The command by its name, as where the package is installed.
RUN printf '#!/bin/sh\nexec env PYTHONPATH=/app python -m qwen_allinone "$@"\n' > /usr/local/bin/qwen-allinone \
    && chmod a+x /usr/local/bin/qwen-allinone

# The hub's cache, the conversations and the hashes of keys, so that volumes keep them between runs. Unlike root-owned ones, ours to write;
# and group 0's, so that any user of it can run this (OpenShift picks one for each project).
RUN useradd --uid 10001 --no-create-home --home-dir /models qaio \
    && mkdir -p /models /data /keys && chown 10001:0 /models /data /keys \
    && chmod 775 /models && chmod 770 /data && chmod 770 /keys \
    # No program that lends its owner's rights: the base image's su, mount, passwd.
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} +
# Nothing but /models, /data, /tmp and /dev/shm is written to when it runs: the root may be read-only. A number, so that
# Kubernetes can tell it is not root.
# Whoever maps a port means to be reached through it; without keys (docs/keys.md) anybody who reaches it may call.
ENV QAIO_HOST=0.0.0.0 \
    HF_HOME=/models \
    QAIO_SESSIONS_FILE=/data/sessions.db \
    QAIO_BATCHES_FILE=/data/batches.db \
    QAIO_ALERTS_OUTBOX=/data/alerts.db \
    QAIO_FIT_FILE=/data/fits.json \
    QAIO_PROMPTS_KEPT=/data/prompts
USER 10001:10001

# With a model id here, the weights become part of the image and the container needs no network.
ARG MODEL=
RUN if [ -n "$MODEL" ]; then \
      python -c "import sys; from qwen_allinone.model.checkpoint import find; find(sys.argv[1], 'main')" "$MODEL"; \
    fi

# Two workers in 4 GB: weights stored as fp16 (arithmetic stays FP32), and a cap on keys and values.
ENV QAIO_WORKERS=2 \
    QAIO_WEIGHTS=fp16 \
    QAIO_KV_TOKENS=3072

EXPOSE 5000
# The first start may download the model; until then /health says 503.
HEALTHCHECK --interval=15s --timeout=5s --start-period=15m --retries=4 \
    CMD ["python", "-m", "qwen_allinone.serving.health"]

# A stop may take as long as Gunicorn's graceful timeout, QAIO_DEADLINE_S + 5: docker stop -t 140.
STOPSIGNAL SIGTERM
CMD ["python", "-m", "qwen_allinone", "serve"]
