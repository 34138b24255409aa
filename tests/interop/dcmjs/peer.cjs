// dcmjs-dimse on the command line: one operation, its outcome as one line of JSON.
// node peer.cjs PORT CALLED echo | store FILE... | find LEVEL JSON | get STUDY | move STUDY DESTINATION
// node peer.cjs PORT CALLED scp            a storage SCP that prints a line for each instance until it is ended
'use strict';
const { Client, Server, Scp, constants, requests, responses } = require('dcmjs-dimse');
const { CEchoRequest, CStoreRequest, CFindRequest, CGetRequest, CMoveRequest } = requests;
const { CEchoResponse, CStoreResponse } = responses;
const { PresentationContextResult, Status } = constants;

for (const level of ['log', 'info', 'warn', 'error', 'debug']) console[level] = () => {};
const [port, called, operation, ...rest] = process.argv.slice(2);
const print = (value) => process.stdout.write(JSON.stringify(value) + '\n');

class StorageScp extends Scp {
  associationRequested(association) {
    for (const { context } of association.getPresentationContexts().map((c) => ({ context: association.getPresentationContext(c.id) }))) {
      const offered = context.getTransferSyntaxUids();
      context.setResult(PresentationContextResult.Accept, offered[0]);
    }
    this.sendAssociationAccept();
  }
  cEchoRequest(request, callback) {
    const response = CEchoResponse.fromRequest(request);
    response.setStatus(Status.Success);
    callback(response);
  }
  cStoreRequest(request, callback) {
    print({ uid: request.getAffectedSopInstanceUid() });
    const response = CStoreResponse.fromRequest(request);
    response.setStatus(Status.Success);
    callback(response);
  }
  associationReleaseRequested() {
    this.sendAssociationReleaseResponse();
  }
}

if (operation === 'scp') {
  const server = new Server(StorageScp);
  server.on('networkError', (error) => print({ error: String(error) }));
  server.listen(Number(port));
} else {
  const outcome = { statuses: [], datasets: [], stored: [] };
  const client = new Client();
  const add = (request) => {
    request.on('response', (response) => {
      outcome.statuses.push(response.getStatus());
      if (response.hasDataset && response.hasDataset()) outcome.datasets.push(response.getDataset().getElements());
      if (response.getCompleted) {
        outcome.counts = [response.getRemaining(), response.getCompleted(), response.getFailures(), response.getWarnings()];
      }
    });
    client.addRequest(request);
  };
  if (operation === 'echo') add(new CEchoRequest());
  if (operation === 'store') rest.forEach((file) => add(new CStoreRequest(file)));
  if (operation === 'find') {
    const keys = JSON.parse(rest[1]);
    const of = { study: 'createStudyFindRequest', series: 'createSeriesFindRequest', image: 'createImageFindRequest' };
    add(CFindRequest[of[rest[0]]](keys));
  }
  if (operation === 'get') add(CGetRequest.createStudyGetRequest(rest[0]));
  if (operation === 'move') add(CMoveRequest.createStudyMoveRequest(rest[1], rest[0]));
  client.on('cStoreRequest', (request, callback) => {
    outcome.stored.push(request.getAffectedSopInstanceUid());
    const response = CStoreResponse.fromRequest(request);
    response.setStatus(Status.Success);
    callback(response);
  });
  client.on('networkError', (error) => { outcome.error = String(error); });
  client.on('associationRejected', (reject) => { outcome.rejected = [reject.result, reject.source, reject.reason]; });
  client.on('closed', () => { print(outcome); process.exit(outcome.error ? 1 : 0); });
  client.send('127.0.0.1', Number(port), 'DCMJS', called);
}
