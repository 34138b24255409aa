# pacslite in a slim Debian: BASE needs Python 3.11 or newer with venv. Nothing is compiled and nothing else installed.
ARG BASE=python:3.13-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
# "codecs" adds what decompresses images for receivers that want them so (NumPy and others, 150 MB)
ARG REQUIREMENTS=runtime
# The locked dependencies first: they change less often than the code
COPY requirements/${REQUIREMENTS}.txt requirements/build.txt requirements/
RUN python3 -m venv /opt/pacslite \
    && /opt/pacslite/bin/python -m pip install --no-cache-dir --require-hashes --only-binary :all: \
        -r requirements/${REQUIREMENTS}.txt
RUN python3 -m venv /opt/build \
    && /opt/build/bin/python -m pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY migrations migrations
COPY pacslite pacslite
# pip compiles what it installs, so that starts need not
RUN /opt/build/bin/python -m hatchling build -t wheel -d /tmp/wheel \
    && /opt/pacslite/bin/python -m pip install --no-cache-dir --no-index --no-deps /tmp/wheel/*.whl \
    && /opt/pacslite/bin/python -m pip uninstall -y -q pip setuptools \
    && mkdir -m 0750 /empty

FROM ${BASE}
LABEL org.opencontainers.image.title="pacslite" \
      org.opencontainers.image.description="DICOM server: C-STORE, C-FIND, C-MOVE, C-GET" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /opt/pacslite /opt/pacslite
# The user has no name in /etc/passwd and needs none; the volume is created with its rights
COPY --from=build --chown=10001:10001 /empty /data
ENV PATH=/opt/pacslite/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PACSLITE_SERVER__DATA_DIR=/data \
    PACSLITE_LOG__FORMAT=json
USER 10001:10001
WORKDIR /
VOLUME /data
EXPOSE 11112
STOPSIGNAL SIGTERM
# A real association with the server's own title and port, whatever they were set to; a rejection as configured is one
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 CMD ["pacslite", "echo", "--self"]
ENTRYPOINT ["pacslite"]
CMD ["serve"]
