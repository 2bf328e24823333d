# Builds three images: web, worker-cpu and worker-gpu. The intake worker and the reaper run in the image worker-cpu.
# The Python version is the one of the tests. Packages come from hashed locks alone; none is for development.

ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE} AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN groupadd --gid 10001 dermq \
    && useradd --uid 10001 --gid dermq --home-dir /var/lib/dermq --shell /usr/sbin/nologin dermq \
    && install --directory --owner dermq --group dermq --mode 700 /var/lib/dermq
WORKDIR /opt/dermq

FROM base AS web-packages
COPY requirements/web.txt requirements/
RUN python -m venv /opt/venv && /opt/venv/bin/python -m pip install --no-deps --require-hashes -r requirements/web.txt

FROM base AS cpu-packages
COPY requirements/cpu.txt requirements/
RUN python -m venv /opt/venv && /opt/venv/bin/python -m pip install --no-deps --require-hashes -r requirements/cpu.txt

FROM base AS gpu-packages
COPY requirements/gpu.txt requirements/
RUN python -m venv /opt/venv && /opt/venv/bin/python -m pip install --no-deps --require-hashes -r requirements/gpu.txt

FROM base AS web
ENV PATH=/opt/venv/bin:$PATH DERMQ_VAR_DIR=/var/lib/dermq DERMQ_WEB_HOST=0.0.0.0 DERMQ_PORT=8000
COPY --from=web-packages /opt/venv /opt/venv
COPY alembic.ini ./
COPY migrations migrations
COPY bundles bundles
COPY dermq dermq
COPY web web
USER dermq
VOLUME /var/lib/dermq
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health/live', timeout=4)"]
CMD ["python", "-m", "gunicorn", "-c", "web/gunicorn_conf.py", "web.app:create_app()"]

FROM base AS worker-cpu
ENV PATH=/opt/venv/bin:$PATH DERMQ_VAR_DIR=/var/lib/dermq
COPY --from=cpu-packages /opt/venv /opt/venv
COPY bundles bundles
COPY dermq dermq
COPY worker worker
USER dermq
VOLUME /var/lib/dermq
HEALTHCHECK --interval=30s --timeout=15s --start-period=60s CMD ["python", "-m", "worker.alive"]
CMD ["python", "-m", "worker", "classify"]

# TensorFlow's wheels bring the CUDA libraries. The host needs the driver and the NVIDIA container toolkit.
FROM base AS worker-gpu
ENV PATH=/opt/venv/bin:$PATH DERMQ_VAR_DIR=/var/lib/dermq DERMQ_ENGINE=keras TF_CPP_MIN_LOG_LEVEL=2
COPY --from=gpu-packages /opt/venv /opt/venv
COPY bundles bundles
COPY dermq dermq
COPY worker worker
USER dermq
VOLUME /var/lib/dermq
HEALTHCHECK --interval=30s --timeout=15s --start-period=300s CMD ["python", "-m", "worker.alive"]
CMD ["python", "-m", "worker", "classify"]
