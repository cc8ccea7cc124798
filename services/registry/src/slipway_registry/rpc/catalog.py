"""slipway.registry.v1.CatalogService: each method checks its request, asks the Hub's gateway, converts the answer."""

from slipway.registry.v1 import catalog_service_pb2 as pb
from slipway.registry.v1 import catalog_service_pb2_grpc
from slipway_service.handlers import Context
from slipway_service.lifecycle import Host
from slipway_service.pages import fill_page
from slipway_service.paging import PageTokens
from slipway_service.validation import Fields, PageSize
from slipway_service.weights.names import RepoId, Revision

from slipway_registry.hub.credentials import Credentials
from slipway_registry.hub.gateway import HubGateway
from slipway_registry.hub.metadata import HubMetadata
from slipway_registry.hub.repositories import Repositories
from slipway_registry.hub.search import search
from slipway_registry.rpc import from_proto, to_proto

SERVICE = pb.DESCRIPTOR.services_by_name["CatalogService"]

_MOST_CONTEXT = 1 << 24


class CatalogService(catalog_service_pb2_grpc.CatalogServiceServicer):
    """A read-only view of the Hub; of the cache where the Hub is away, as far as that goes."""

    def __init__(
        self, gateway: HubGateway, metadata: HubMetadata, repositories: Repositories, credentials: Credentials
    ) -> None:
        self._gateway = gateway
        self._metadata = metadata
        self._repositories = repositories
        self._credentials = credentials
        self._tokens = PageTokens()

    def offer(self, host: Host) -> None:
        """Serve this on a host."""
        host.offer(SERVICE, catalog_service_pb2_grpc.add_CatalogServiceServicer_to_server, self)

    async def SearchRepos(self, request: pb.SearchReposRequest, context: Context) -> pb.SearchReposResponse:
        query = from_proto.search_query(request)
        cursor = self._tokens.open(request.page_token, request) or ""
        page = await search(self._gateway, query, cursor, from_proto.credential(context, self._credentials))
        token = self._tokens.seal(page.cursor, request) if page.cursor else ""
        return pb.SearchReposResponse(repos=map(to_proto.summary, page.repos), next_page_token=token)

    async def GetRepo(self, request: pb.GetRepoRequest, context: Context) -> pb.GetRepoResponse:
        with Fields() as fields:
            repo, revision = from_proto.repo_at(fields, request.repo_id, request.revision)
            devices = fields.parse("devices", from_proto.devices, request.devices)
            few = request.context_tokens <= _MOST_CONTEXT
            fields.check("context_tokens", few, f"must be at most {_MOST_CONTEXT:,}")
        found = await self._repositories.get(
            repo,
            revision,
            from_proto.credential(context, self._credentials),
            devices=devices,
            context_tokens=request.context_tokens,
        )
        return pb.GetRepoResponse(repo=to_proto.repository(found))

    async def ListRepoFiles(self, request: pb.ListRepoFilesRequest, context: Context) -> pb.ListRepoFilesResponse:
        with Fields() as fields:
            repo, revision = from_proto.repo_at(fields, request.repo_id, request.revision)
            size = fields.parse("page_size", PageSize.parse, request.page_size)
        # Later pages stay on the first page's commit, whatever the branch does meanwhile.
        commit, _, after = (self._tokens.open(request.page_token, request) or "").partition("/")
        credential = from_proto.credential(context, self._credentials)
        tree = await self._repositories.tree(repo, Revision(commit) if commit else revision, credential)
        files, more = fill_page((to_proto.repo_file(file) for file in tree.files if file.path > after), size)
        token = self._tokens.seal(f"{tree.commit}/{files[-1].path}", request) if more else ""
        return pb.ListRepoFilesResponse(files=files, commit=tree.commit, next_page_token=token)

    async def ListRepoRefs(self, request: pb.ListRepoRefsRequest, context: Context) -> pb.ListRepoRefsResponse:
        with Fields() as fields:
            repo = fields.parse("repo_id", RepoId.parse, request.repo_id)
            size = fields.parse("page_size", PageSize.parse, request.page_size)
        start = int(self._tokens.open(request.page_token, request) or 0)
        refs = await self._metadata.refs(repo, from_proto.credential(context, self._credentials))
        page, more = fill_page(map(to_proto.repo_ref, refs[start:]), size)
        token = self._tokens.seal(str(start + len(page)), request) if more else ""
        return pb.ListRepoRefsResponse(refs=page, next_page_token=token)
