"""German licence plates: the district, one or two letters, and up to four digits."""

import re
from collections.abc import Iterator

from shardline_consumer.pii.scan import Context, Scan, Span

# The districts of the Federal Motor Transport Authority, those that were brought back included.
_DISTRICTS = frozenset(
    """
    A AA AB ABG ABI AC AE AH AIB AIC AK ALF ALZ AM AN ANA ANG ANK A\xd6 AP APD ARN ART AS ASL ASZ AT
    AU AUR AW AZ AZE B BA BAD BAR BB BBG BBL BC BCH BD BE BED BER BF BGD BGL BH BI BID BIN BIR BIT
    BIW BK BKS BL BLB BLK BM BN BNA BO B\xd6 BOG BOH BOR BOT BP BRA BRB BRG BRI BRK BRL BRV BS BSB
    BSK BT BTF B\xdcD B\xdcR B\xdcS B\xdcZ BW BWL BYL BZ BZA C CA CAS CB CE CHA CLP CLZ CO COC COE
    CR CUX CW D DA DAH DAN DAU DBR DD DE DEG DEL DGF DH DI DIL DIN DIZ DKB DL DLG DM DN DO DON DU
    DUD D\xdcW DW DZ E EA EB EBE EBN EBS ECK ED EE EF EG EH EI EIC EIH EIL EIN EIS EL EM EMD EMS EN
    ER ERB ERH ERK ERZ ES ESB ESW EU EUT EW F FB FD FDB FDS FEU FF FFB FG FH FI FKB FL FL\xd6 FN FO
    FOR FR FRG FRI FRW FS FT FTL F\xdc F\xdcS FW FZ G GA GAN GAP GC GD GDB GE GEL GEM GEO GER GF GG
    GHA GHC GI GK GL GLA GM GMN GN GNT G\xd6 GOA GOH GP GR GRA GRH GRI GRM GRZ GS GT GTH G\xdc GUB
    GUN GV GVM GW GZ H HA HAB HAL HAM HAS HB HBN HBS HC HCH HD HDH HDL HE HEB HEF HEI HEL HER HET HF
    HG HGN HGW HH HHM HI HIG HIP HK HL HM HM\xdc HN HO HOG HOH HOL HOM HOR H\xd6S HOT HP HR HRO HS
    HSK HST HU HV HVL HWI HX HY HZ IGB IK IL ILL IN IZ J JE JL J\xdcL K KA KAR KB KC KE KEH KEL KEM
    KF KG KH KI KIB KK KL KLE KLZ KM KN KO K\xd6N K\xd6T K\xd6Z KR KRU KS KT KU K\xdcN KUS KW KY KYF
    L LA LAN LAU LB LBS LBZ LC LD LDK LDS LEO LER LEV LF LG LH LI LIB LIF LIN LIP LL LM LN L\xd6
    L\xd6B LOS LP LR LRO LS LSA LSN LSZ LU L\xdcN LUP LWL LY M MA MAB MAI MAK MAL MAR MAT MB MC MD
    ME MED MEG MEI MEK MEL MER MET MG MGH MGN MH MHL MI MIL MK MKK ML MM MN MO MOD MOL MON MOS MQ MR
    MS MSE MSH MSP MST MTK MTL M\xdc M\xdcB M\xdcL M\xdcR MVL MW MY MYK MZ MZG N NAB NAI NAU NB ND
    NDH NE NEA NEB NEC NEN NES NEU NEW NF NH NI NIB NK NL NM NMB NMS N\xd6 NOH NOL NOM NOR NP NR NRW
    NT NU NVP NW NWM NY NZ OA OAL OB OBB OBG OC OCH OD OE OF OG OH OHA OHV OHZ OK OL OP OPR OR OS
    OSL OVI OVL OVP OZ P PA PAF PAN PAR PB PCH PE PEG PER PF PI PIR PK PL PL\xd6 PM PN PR PR\xdc PS
    PW PZ QFT QLB R RA RC RD RDG RE REG REH REI RG RH RI RID RIE RL RM RN RO ROD ROF ROH ROK ROL ROS
    ROT ROW RP RPL RS RSL RT RU R\xdcD R\xdcG RV RW RY RZ S SAB SAD SAL SAN SAW SB SBG SBK SC SCZ
    SDH SDL SDT SE SEB SEE SEF SEL SFB SFT SG SGH SH SHA SHG SHK SHL SI SIG SIM SK SL SLE SLF SLG
    SLK SLN SLS SL\xdc SLZ SM SMU SM\xdc SN SO SOB SOG SOK S\xd6M SON SP SPB SPN SR SRB SRO ST STA
    STB STD STE STH STL STO SU SUL S\xdcW SW SWA SY SZ SZB TBB TDO TE TET TF TG THL THW TIR TO
    T\xd6L T\xd6N TP TR TS TT T\xdc TUT UE \xdcB UEM UER UFF UH UL UM UN USI V VAI VB VEC VER VG VIB
    VIE VIT VK VL VOH VR VS W WA WAF WAK WAN WAR WAT WB WBS WDA WE WEB WEL WEN WER WES WF WG WHV WI
    WIL WIS WIT WITT WIZ WK WL WLG WM WMS WN WND WO WOB WOH WOL WOR WOS WR WRN WS WSF WST WSW WT WTL
    WTM W\xdc WUG W\xdcM WUN WUR WW WZ WZL X Y Z ZE ZEL ZI ZIG ZP ZR ZS ZW ZZ
    """.split()  # noqa: SIM905
)
_PLATE = re.compile(
    r"[0-9](?<=[A-Z][ -][0-9])(?:[0-9]{0,3})[EH]?(?![0-9A-Za-z]|[-/][0-9])"
    r"|[0-9](?<=[A-Z]{2}[0-9])(?:[0-9]{0,3})[EH]?(?![0-9A-Za-z]|[-/][0-9])"
)
_LETTERS = re.compile(
    "(?<![0-9A-Za-z\xc4\xd6\xdc\xdf\xe4\xf6\xfc_/-])([A-Z\xc4\xd6\xdc]{1,4})( ?[-: ] ?)([A-Z]{1,2})[ -]?\\Z"
)
_REACH = 12
_LONGEST = 8
_SURE_DIGITS = 2
_CONTEXT = Context(
    r"Kennz|Kfz|KFZ|Nummernsch|Pkw|PKW|Lkw|LKW|Fahrzeug|\bAuto\b|\bWagen|Halter|zugelassen"
    r"|\bplates?\b|registration|\bcar\b|vehicle"
    r"|\bvan\b|\btruck|Motorrad|Anh\xe4nger|Transporter|\bBMW|\bVW\b|Volkswagen|\bGolf\b|Passat"
    r"|\bAudi|Mercedes|\bOpel|\bFord\b|Porsche"
    r"|Skoda|\u0160koda|Toyota|Tesla|parkt|geparkt|parked|Roller|\bTaxi|Kombi|SUV|Limousine|Unfall"
    r"|Stellplatz|Parkplatz|Falschpark",
    r"\bDIN|\bISO|\bEN\b|\bVDE|\bVDI|Aktenz|\bA[Zz]\b|Urteil|Beschluss|Norm\b|Artikel|Rechnung"
    r"|Bestell|\bBGB|\bRaum|Zimmer|Modell"
    r"|Flug|Typ\b|Version|Gesch\xe4ftsz|Standard|Drucks|ECLI|Raster|Bauteil|Order|Invoice|\bRoom"
    r"|Papier|Format|Wert|Tarif|Lohn",
    64,
)
_NO_DISTRICTS = frozenset({"DIN"})


def find_plates(scan: Scan) -> Iterator[Span]:
    """Plates by district and form, `M-AB 1234`; others by the words around."""
    text = scan.text
    for digits in _PLATE.finditer(text):
        letters = _LETTERS.search(text, max(0, digits.start() - _REACH), digits.start())
        if letters is not None and _is_plate(text, letters, digits):
            yield letters.start(), digits.end()


def _is_plate(text: str, letters: re.Match[str], digits: re.Match[str]) -> bool:
    district, mark, series = letters.groups()
    if district not in _DISTRICTS or digits[0].startswith("0"):
        return False
    if len(district + series) + len(digits[0].rstrip("EH")) > _LONGEST:
        return False
    context = _CONTEXT.of(text, letters.start(), digits.end())
    if context is not None:
        return context
    spaced = text[digits.start() - 1] == " "
    return (
        mark == "-"
        and spaced
        and district not in _NO_DISTRICTS
        and len(series) == _SURE_DIGITS
        and len(digits[0]) > 1
    )
