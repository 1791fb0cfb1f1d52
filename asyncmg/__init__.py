"""asyncmg: the Mongoose way of networking, native to asyncio.

One event vocabulary (``MG_EV_*``) over HTTP, WebSocket, MQTT, TCP, UDP, Unix sockets and TLS, read as
``async for ev, data in conn`` or handled by ``handler(conn, ev, data)``, plain or async. This module only re-exports;
the folders below it are layers, and imports go one way: cli, websocket, manager, connection, verbs, protocols, codecs,
transports, core.
"""

from .addresses import Address
from .async_manager import AsyncManager
from .broadcast import broadcast
from .broker.hooks import BrokerClient, ConnectAttempt
from .broker.message import Message as BrokerMessage
from .broker.passwords import PasswordFile
from .broker.statistics import BrokerStatistics
from .broker.store import BrokerStore, MemoryStore
from .codecs.dns import DnsRecord, MxData, RecordType, SoaData, SrvData, TxtData
from .codecs.http import Role
from .codecs.ws_deflate import Deflate
from .connection import Connection, Handler
from .cookies import Cookie, parse_cookies
from .dispatch import CallbackSink, EventSink
from .errors import (
    AsyncmgError,
    BusyError,
    CloseFrame,
    ConnectFailed,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    DeadlineExceeded,
    HandshakeFailed,
    InvalidHeader,
    InvalidPacket,
    InvalidUrl,
    KissOfDeath,
    LimitExceeded,
    ListenFailed,
    LocalProtocolError,
    ManagerClosed,
    MqttRefused,
    NameNotFound,
    ProtocolError,
    RemoteProtocolError,
    ResolveFailed,
    ResolveTimeout,
    SntpFailed,
    StoreFailed,
    TlsError,
)
from .events import (
    MG_EV_ACCEPT,
    MG_EV_CLOSE,
    MG_EV_CONNECT,
    MG_EV_ERROR,
    MG_EV_HTTP_HDRS,
    MG_EV_HTTP_MSG,
    MG_EV_MQTT_CMD,
    MG_EV_MQTT_MSG,
    MG_EV_MQTT_OPEN,
    MG_EV_OPEN,
    MG_EV_POLL,
    MG_EV_READ,
    MG_EV_RESOLVE,
    MG_EV_SNTP_TIME,
    MG_EV_TLS_HS,
    MG_EV_USER,
    MG_EV_WAKEUP,
    MG_EV_WRITE,
    MG_EV_WS_CTL,
    MG_EV_WS_MSG,
    MG_EV_WS_OPEN,
    Event,
    event_name,
)
from .fields import parse_header_line, parse_header_parameters
from .files.reply import FileReply, StaticFolder
from .forms.form import Form, FormPart
from .forms.multipart import http_parse_multipart
from .forms.uploads import UploadedFile
from .handlers.access_log import access_log
from .handlers.auth import basic_credentials, bearer_token, require_basic, require_bearer, same_secret
from .handlers.compress import compress
from .handlers.cors import cors
from .handlers.router import Router
from .handlers.static import StaticFiles
from .hashing import (
    base64_decode,
    base64_encode,
    crc32,
    hmac_sha256,
    md5,
    millis,
    random_bytes,
    random_str,
    sha1,
    sha256,
)
from .json_path import json_get, json_get_bool, json_get_long, json_get_num, json_get_str
from .limits import (
    BufferLimits,
    DnsLimits,
    FormLimits,
    HttpLimits,
    Limits,
    MqttLimits,
    NetLimits,
    SntpLimits,
    WsLimits,
)
from .listener import Listener
from .logs import MG_LL_DEBUG, MG_LL_ERROR, MG_LL_INFO, MG_LL_NONE, MG_LL_VERBOSE, log_get, log_set
from .manager import Manager, connect
from .matching import InvalidPattern, match
from .mdns import MdnsResponder, MdnsService, mdns_browse, mdns_serve, mdns_types
from .messages import HttpMessage, WsMessage
from .mqtt_broker import BrokerSubscription, MqttBroker
from .mqtt_client import mqtt_connect
from .mqtt_face import MqttClient, MqttSubscription
from .mqtt_message import (
    MQTT_PROP_TYPE_BINARY_DATA,
    MQTT_PROP_TYPE_BYTE,
    MQTT_PROP_TYPE_INT,
    MQTT_PROP_TYPE_SHORT,
    MQTT_PROP_TYPE_STRING,
    MQTT_PROP_TYPE_STRING_PAIR,
    MQTT_PROP_TYPE_VARIABLE_INT,
    MqttMessage,
    MqttWill,
)
from .mqtt_store import MqttStore, SqliteStore
from .pairs import Pairs
from .protocols.base import BaseProtocol
from .protocols.datagram import DatagramProtocol
from .protocols.http import HttpProtocol
from .protocols.http_filters import ContentEncoder, ReplyDraft, ReplyFilter
from .protocols.mqtt import MqttProtocol
from .protocols.sntp import SntpClientProtocol, SntpServerProtocol, SntpSource
from .protocols.stream import StreamProtocol
from .protocols.ws import WsProtocol
from .queries import decode_percent_encoding, http_var, parse_query, parse_url
from .resolver.answer import DnsAnswer
from .resolver.service import Resolver, resolve
from .rpc import Rpc
from .rpc_client import RpcClient
from .rpc_messages import RpcError, RpcReq
from .sntp_client import SntpTime, sntp_time
from .timers import Timer
from .tls import TlsOpts
from .url_parts import url_encode, url_host, url_is_ssl, url_pass, url_port, url_uri, url_user
from .urls import Url
from .verbs.ws import (
    WEBSOCKET_OP_BINARY,
    WEBSOCKET_OP_CLOSE,
    WEBSOCKET_OP_CONTINUE,
    WEBSOCKET_OP_PING,
    WEBSOCKET_OP_PONG,
    WEBSOCKET_OP_TEXT,
)
from .websocket import WebSocket
from .ws_client import ws_connect
from .ws_server import WsServer, ws_serve

__version__ = "0.1.0"

__all__ = [
    "AsyncManager",
    "base64_decode",
    "base64_encode",
    "crc32",
    "hmac_sha256",
    "md5",
    "millis",
    "random_bytes",
    "random_str",
    "sha1",
    "sha256",
    "json_get",
    "json_get_bool",
    "json_get_long",
    "json_get_num",
    "json_get_str",
    "MG_LL_NONE",
    "MG_LL_ERROR",
    "MG_LL_INFO",
    "MG_LL_DEBUG",
    "MG_LL_VERBOSE",
    "log_get",
    "log_set",
    "url_encode",
    "url_host",
    "url_is_ssl",
    "url_pass",
    "url_port",
    "url_uri",
    "url_user",
    "Rpc",
    "RpcClient",
    "RpcError",
    "RpcReq",
    "MQTT_PROP_TYPE_BYTE",
    "MQTT_PROP_TYPE_STRING",
    "MQTT_PROP_TYPE_STRING_PAIR",
    "MQTT_PROP_TYPE_BINARY_DATA",
    "MQTT_PROP_TYPE_VARIABLE_INT",
    "MQTT_PROP_TYPE_INT",
    "MQTT_PROP_TYPE_SHORT",
    "InvalidPattern",
    "http_var",
    "DnsAnswer",
    "DnsLimits",
    "DnsRecord",
    "KissOfDeath",
    "MxData",
    "NameNotFound",
    "RecordType",
    "ResolveFailed",
    "ResolveTimeout",
    "Resolver",
    "SntpClientProtocol",
    "SntpFailed",
    "SntpLimits",
    "SntpServerProtocol",
    "SntpSource",
    "SntpTime",
    "SoaData",
    "SrvData",
    "TxtData",
    "resolve",
    "sntp_time",
    "SqliteStore",
    "MqttStore",
    "MqttSubscription",
    "MqttClient",
    "mqtt_connect",
    "StoreFailed",
    "MqttRefused",
    "BrokerClient",
    "BrokerMessage",
    "BrokerStatistics",
    "BrokerStore",
    "BrokerSubscription",
    "ConnectAttempt",
    "MemoryStore",
    "MqttBroker",
    "MqttLimits",
    "MqttMessage",
    "MqttProtocol",
    "MqttWill",
    "PasswordFile",
    "FileReply",
    "StaticFolder",
    "Form",
    "FormPart",
    "UploadedFile",
    "access_log",
    "basic_credentials",
    "bearer_token",
    "require_basic",
    "require_bearer",
    "same_secret",
    "compress",
    "cors",
    "Router",
    "StaticFiles",
    "match",
    "Pairs",
    "decode_percent_encoding",
    "parse_query",
    "parse_url",
    "parse_header_line",
    "parse_header_parameters",
    "parse_cookies",
    "FormLimits",
    "ReplyFilter",
    "ReplyDraft",
    "ContentEncoder",
    "Cookie",
    "MG_EV_ACCEPT",
    "MG_EV_CLOSE",
    "MG_EV_CONNECT",
    "MG_EV_ERROR",
    "MG_EV_HTTP_HDRS",
    "MG_EV_HTTP_MSG",
    "MG_EV_MQTT_CMD",
    "MG_EV_MQTT_MSG",
    "MG_EV_MQTT_OPEN",
    "MG_EV_OPEN",
    "MG_EV_POLL",
    "MG_EV_READ",
    "MG_EV_RESOLVE",
    "MG_EV_SNTP_TIME",
    "MG_EV_TLS_HS",
    "MG_EV_USER",
    "MG_EV_WAKEUP",
    "MG_EV_WRITE",
    "MG_EV_WS_CTL",
    "MG_EV_WS_MSG",
    "MG_EV_WS_OPEN",
    "WEBSOCKET_OP_BINARY",
    "WEBSOCKET_OP_CLOSE",
    "WEBSOCKET_OP_CONTINUE",
    "WEBSOCKET_OP_PING",
    "WEBSOCKET_OP_PONG",
    "WEBSOCKET_OP_TEXT",
    "Address",
    "AsyncmgError",
    "BaseProtocol",
    "BufferLimits",
    "BusyError",
    "CallbackSink",
    "CloseFrame",
    "ConnectFailed",
    "Connection",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "DatagramProtocol",
    "DeadlineExceeded",
    "Deflate",
    "Event",
    "EventSink",
    "Handler",
    "HandshakeFailed",
    "HttpLimits",
    "HttpMessage",
    "HttpProtocol",
    "InvalidHeader",
    "InvalidPacket",
    "InvalidUrl",
    "LimitExceeded",
    "Limits",
    "ListenFailed",
    "Listener",
    "LocalProtocolError",
    "Manager",
    "ManagerClosed",
    "MdnsResponder",
    "MdnsService",
    "mdns_browse",
    "mdns_serve",
    "mdns_types",
    "NetLimits",
    "ProtocolError",
    "RemoteProtocolError",
    "Role",
    "StreamProtocol",
    "Timer",
    "TlsError",
    "TlsOpts",
    "Url",
    "WebSocket",
    "WsLimits",
    "WsMessage",
    "WsProtocol",
    "WsServer",
    "broadcast",
    "connect",
    "event_name",
    "http_parse_multipart",
    "ws_connect",
    "ws_serve",
]
