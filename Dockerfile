# Everything a user needs on a CPU:
#   docker build -t plstm-graph .
#   docker run --rm -v "$PWD:/work" plstm-graph train --data my.csv --targets y
FROM python:3.12-slim
RUN pip install --no-cache-dir torch --index-url https://download.pytorch.org/whl/cpu
WORKDIR /opt/plstm_graph
COPY pyproject.toml README.md LICENSE ./
COPY plstm_graph plstm_graph
RUN pip install --no-cache-dir '.[all]'
WORKDIR /work
ENTRYPOINT ["plstm-graph"]
